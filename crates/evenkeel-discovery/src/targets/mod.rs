//! Discoveries from addresses as users write them, in a flag or a configuration.
//!
//! | address | discovery | feature |
//! |---|---|---|
//! | `list:10.0.0.1:80,10.0.0.2:80` (also `ipv4:…`, `ipv6:…`, `unix:/path`) | [`Fixed`](crate::Fixed) | |
//! | `10.0.0.1:80`, `10.0.0.1:80, 10.0.0.2:80` | [`Fixed`](crate::Fixed) | |
//! | `file:///etc/app/endpoints.yaml` | `File` | `json`, `yaml`, `toml` |
//! | `dns:///db.internal:5432`, `dns://10.0.0.53:53/db.internal:5432`, `db.internal:5432` | `Dns`, addresses | `dns` |
//! | `dns:///_grpc._tcp.shop.internal` | `Dns`, SRV records | `dns` |
//! | `consul://10.0.0.1:8500,10.0.0.2:8500/web?tag=v2` | `Consul` | `consul` |
//! | `etcd://10.0.0.1:2379,10.0.0.2:2379/web?dialect=naming` | `Etcd` | `etcd` |
//! | `k8s://shop/web:http` (also `kubernetes://shop/web:8080`, `kubernetes:///web.shop:8080`) | `Kubernetes` | `kubernetes` |
//!
//! Schemes are case-insensitive. Spaces around the whole address and around commas are ignored.
//! Control characters are refused. An endpoint has no scheme of its own, such as `http:`: TLS is
//! configured where connections are made.
//!
//! If there is no host, as in `consul:///web`, it is this machine. If there is no port, it is the
//! registry's default. These options may follow a `?`, separated by `&`; characters with a special
//! meaning are encoded, such as `%20`:
//!
//! | registry | options |
//! |---|---|
//! | Consul | `tag` (may be repeated), `filter`, `dc`, `near`, `peer`, `consistency` (`leader`, `stale`, `consistent`), `dialect` (`plain`, `kit`, `micro`), `ns`, `partition`, `passing=true` (or `healthy=true`), `wait=30s`, `hold=5s`, `timeout=5s`, `max_stale=1h`, `token`, `token_file`, `tls=true` with `ca_file`, `cert_file`, `key_file` |
//! | etcd | `dialect` (`plain`, `naming`, `micro`, `zero`, `kratos-grpc`, `kratos-http`, `kit`, where the path is the prefix), `quiet=5s`, `hold=5s`, `timeout=5s`, `max_stale=1h`, `tls=true` with `ca_file`, `cert_file`, `key_file`; the user before the hosts: `etcd://name:password@host/web` |
//! | Kubernetes | `kubeconfig` (a path), `context`, `in_cluster=true`, `zone`, `node`, `family` (`prefer_ipv4`, `prefer_ipv6`, `ipv4`, `ipv6`, `both`), `timeout=10s`, `hold=5s`, `max_stale=1h`; the port is a name of the service, or a number of the pods |
//!
//! ```
//! use evenkeel::discovery::targets::discover;
//!
//! let discovery = discover("list:10.0.0.1:80,10.0.0.2:80")?;
//!
//! let error = discover("carrier-pigeon:///web").err().expect("the scheme is unknown").to_string();
//! assert!(error.starts_with("`carrier-pigeon:///web` names no discovery: there is no `carrier-pigeon`"));
//! # let _ = discovery;
//! # Ok::<(), evenkeel::discovery::targets::TargetError>(())
//! ```
//!
//! With a scheme of your own:
//!
//! ```
//! use std::sync::Arc;
//! use evenkeel::core::{BoxError, discover::Discovery};
//! use evenkeel::discovery::{Fixed, targets::{Target, Targets}};
//!
//! let targets = Targets::new().with("rack", |target: &Target| {
//!     let number: u8 = target.path.parse()?;
//!     Ok(Arc::new(Fixed::parse([&*format!("10.0.{number}.1:80")])?))
//! });
//! assert!(targets.discover("rack:///7").is_ok());
//! assert!(targets.discover("rack:///seven").is_err());
//! ```
//!
//! An address may show up in a list of processes and in logs. Put a token into a file rather than
//! into an address, and set a password in the program.

mod hidden;
mod known;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(any(feature = "consul", feature = "etcd", feature = "kubernetes"))]
mod options;
mod parse;
#[cfg(any(feature = "consul", feature = "etcd"))]
mod tls;

use std::{collections::BTreeMap, fmt, sync::Arc};

use evenkeel_core::{BoxError, discover::Discovery};

pub use self::parse::Target;

type Made = Result<Arc<dyn Discovery>, BoxError>;
type Make = dyn Fn(&Target) -> Made + Send + Sync;

/// The discovery that an address names, by one of the schemes of this crate.
///
/// # Errors
/// If there is no such scheme, its feature is switched off, or the rest cannot be read.
pub fn discover(address: &str) -> Result<Arc<dyn Discovery>, TargetError> {
    Targets::new().discover(address)
}

/// The known schemes of addresses.
#[derive(Clone)]
pub struct Targets {
    schemes: BTreeMap<String, Arc<Make>>,
}

/// An address that names no discovery, and why.
#[derive(Debug, thiserror::Error)]
#[error("`{address}` names no discovery: {reason}")]
#[non_exhaustive]
pub struct TargetError {
    /// The address, without a user's password and the values of options that may be secret,
    /// shortened to 120 characters.
    pub address: String,
    /// What is wrong with it, shortened to 400 characters.
    pub reason: String,
}

const MAX_ADDRESS: usize = 120;
const MAX_REASON: usize = 400;

impl Targets {
    /// The schemes of this crate.
    #[must_use]
    pub fn new() -> Self {
        known::SCHEMES
            .into_iter()
            .fold(Self { schemes: BTreeMap::new() }, |all, (scheme, make)| all.with(scheme, make))
    }

    /// Adds a scheme, or replaces it.
    #[must_use]
    pub fn with(
        mut self,
        scheme: &str,
        make: impl Fn(&Target) -> Result<Arc<dyn Discovery>, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.schemes.insert(scheme.to_ascii_lowercase(), Arc::new(make));
        self
    }

    /// The discovery that an address names.
    ///
    /// # Errors
    /// If there is no such scheme, or the rest cannot be read.
    pub fn discover(&self, address: &str) -> Result<Arc<dyn Discovery>, TargetError> {
        let address = address.trim();
        self.make(address).map_err(|error| TargetError {
            address: hidden::shortened(&hidden::without_secrets(address), MAX_ADDRESS),
            reason: hidden::shortened(&crate::error::chain(&*error), MAX_REASON),
        })
    }

    fn make(&self, address: &str) -> Result<Arc<dyn Discovery>, BoxError> {
        if address.is_empty() {
            return Err(format!("it is empty; write {}", self.known()).into());
        }
        if address.chars().any(char::is_control) {
            return Err("there is a control character in it, such as a line break or NUL".into());
        }
        let (scheme, rest) = address.split_once(':').unwrap_or(("", address));
        if let Some(make) = self.schemes.get(&scheme.to_ascii_lowercase()) {
            return make(&Target::parse(address)?);
        }
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-".contains(c));
        // A host and a port are separated by a colon too.
        let is_port = rest.contains(':') || rest.starts_with(|c: char| c.is_ascii_digit());
        match rest.strip_prefix("//") {
            Some(rest) if is_scheme => Err(self.unknown(scheme, rest).into()),
            None if is_scheme && !is_port => Err(self.unknown(scheme, "").into()),
            _ => known::plain(address),
        }
    }

    fn known(&self) -> String {
        let known: Vec<_> = self.schemes.keys().map(|scheme| format!("{scheme}:")).collect();
        format!("{} or host:port", known.join(" "))
    }

    /// The error for an unknown scheme; `rest` follows its `//`.
    fn unknown(&self, scheme: &str, rest: &str) -> String {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let default = match scheme.to_ascii_lowercase().as_str() {
            "http" | "h2c" | "ws" | "grpc" => 80,
            "https" | "h2" | "wss" | "grpcs" => 443,
            "tcp" | "tls" | "ssl" => 0,
            _ => {
                let (scheme, known) = (hidden::quoted(scheme), self.known());
                return format!("there is no {scheme}; there are {known}");
            }
        };
        let with_port = format!("{host}:{default}");
        let address = [host, &*with_port]
            .into_iter()
            .find(|text| text.parse::<evenkeel_core::endpoint::Address>().is_ok());
        let address = hidden::quoted(address.unwrap_or("host:port"));
        format!(
            "an endpoint has no scheme: write {address} (TLS is set where connections are made)"
        )
    }
}

impl Default for Targets {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.schemes.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(address: &str) -> String {
        let Err(error) = discover(address) else { panic!("{address} was taken") };
        error.to_string()
    }

    #[test]
    fn addresses_that_need_no_registry_are_read() {
        for address in [
            "list:10.0.0.1:80,[::1]:80,web.internal:80",
            "ipv4:10.0.0.1:80,10.0.0.2:80",
            "ipv6:[::1]:80",
            "unix:/run/app.sock",
            "unix:///run/app.sock",
            "10.0.0.1:80",
            "[::1]:80",
            "10.0.0.1:80,10.0.0.2:80",
            " 10.0.0.1:80 , [::1]:80,web.internal:80,\n",
            "LIST: 10.0.0.1:80, 10.0.0.2:80 ",
            "Unix:/run/App.sock",
        ] {
            assert!(discover(address).is_ok(), "{}", reason(address));
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        for empty in ["", " \t\n"] {
            assert!(reason(empty).contains("it is empty; write"), "{}", reason(empty));
        }
        assert!(reason("carrier:pigeon").contains("there is no `carrier`"));
        assert!(reason("k8x://a/b").contains("there is no `k8x`"));
        assert!(reason("list:").contains("no address"));
        assert!(reason("list:10.0.0.1").contains("the port is missing"));
        assert!(reason("list:10.0.0.1:80?weight=3").contains("no option `weight`"));
    }

    #[test]
    fn an_address_as_people_write_it_is_refused_with_what_to_write() {
        for (address, hint) in [
            ("http://10.0.0.1:80", "no scheme: write `10.0.0.1:80`"),
            ("HTTP://10.0.0.1:80/", "no scheme: write `10.0.0.1:80`"),
            ("https://shop.internal/api?x=1", "no scheme: write `shop.internal:443`"),
            ("grpc://[::1]", "no scheme: write `[::1]:80`"),
            ("tcp://10.0.0.1", "no scheme: write `host:port`"),
            ("10.0.0.1", "the port is missing (write 10.0.0.1:80"),
            ("db.internal", "the port is missing"),
            ("::1", "an IPv6 address stands in brackets: write `[::1]:80`"),
            ("2001:db8::1:8080", "an IPv6 address stands in brackets"),
            (":80", "the host is neither"),
            ("db:", "there is no `db`; there are"),
            ("10.0.0.1:http", "the port is no number"),
            ("10.0.0.1:80/", "the port is no number"),
            ("10.0.0.1:80;10.0.0.2:80", "commas"),
            ("10.0.0.1:80 10.0.0.2:80", "commas"),
            ("list:10.0.0.1:80 10.0.0.2:80", "commas"),
            ("list://10.0.0.1:80", "write list:10.0.0.1:80"),
            (",", "no address in the list"),
        ] {
            let reason = reason(address);
            assert!(reason.contains(hint), "{address}: {reason}");
            assert!(reason.len() < 300, "{address}: {reason}");
        }
    }

    #[test]
    fn control_characters_are_refused_and_not_echoed() {
        for address in [
            "10.0.0.1:80\0",
            "10.0.0.1:80\n10.0.0.2:80",
            "unix:/run/a\0b",
            "\u{1b}[31m:80",
            "consul:///we%00b",
            "consul:///web?tag=%1b",
            "list:10.0.0.1%00:80",
        ] {
            let reason = reason(address);
            assert!(reason.contains("control character"), "{address:?}: {reason}");
            assert!(!reason.contains(char::is_control), "{address:?}: {reason:?}");
        }
    }

    #[test]
    fn users_and_passwords_are_not_echoed() {
        for address in [
            "s3cret:s3cret@10.0.0.1:80",
            "s3cret@10.0.0.1:80",
            "10.0.0.1:80,u:s3cret@10.0.0.2:80",
            "http://u:s3cret@10.0.0.1:80",
            "https://s3cret@shop/",
            "list:u:s3cret@10.0.0.1:80,v:s3cret@10.0.0.2:80",
            "list://u:s3cret@10.0.0.1:80",
            "dns://u:s3cret@10.0.0.53/db:80",
            "dns:u:s3cret@db:80",
            "consul://u:s3cret@/web",
            "etcd://u:s3/cret@host/web",
            "etcd://u:s3cret?@host/web",
            "consul:///web?token=s3cret&near=a@b&x=1",
            "s3cret@host:http",
            "s3cret@a://b",
            "etcd://u:%zzs3cret@host/web",
            "etcd://s3cret@host/web",
            "redis://u:s3cret@host/0",
            "consul:///web?token=s3cret&x=1",
            "consul:///web?%74oken=s3cret&x=1",
            "consul:///web?Password=s3cret",
            "consul:///web?api_key=s3cret",
        ] {
            let reason = reason(address);
            assert!(!reason.contains("s3cret"), "{address}: {reason}");
            assert!(!reason.contains("s3/cret"), "{address}: {reason}");
        }
        assert!(reason("u:s3cret@10.0.0.1:80").contains("an endpoint has no user"));
    }

    #[test]
    fn a_long_address_is_read_and_a_long_one_that_is_wrong_gives_a_short_message() {
        let many: Vec<_> = (0..5_000).map(|n| format!("10.0.{}.{}:80", n / 250, n % 250)).collect();
        assert!(discover(&many.join(",")).is_ok());

        let long = "a".repeat(65_536);
        for address in [
            long.clone(),
            format!("{long}:80"),
            format!("{long}://host"),
            format!("{}x:80", many.join(",")),
            format!("list:{long}"),
            format!("dns:///{long}"),
            format!("dns:///{long}:80"),
            format!("k8s:///{long}"),
            format!("consul:///web?{long}=1"),
            format!("etcd:///web?dialect={long}"),
            format!("file:///{long}"),
            format!("http://{long}"),
            format!("consul:///web?wait={}", "ä".repeat(30_000)),
        ] {
            let reason = reason(&address);
            assert!(reason.chars().count() < 600, "{} characters: {reason}", reason.len());
        }
        assert!(reason(&format!("{long}:80")).contains("host:80 or unix:/path)"), "the hint stays");
    }

    #[cfg(feature = "consul")]
    #[test]
    fn services_in_consul_are_read() {
        for address in [
            "consul:///web",
            "consul://agent/web",
            "consul://10.0.0.1:8500,10.0.0.2:8501/go.micro.web?tag=a&tag=b&dc=dc2",
            "consul://[::1]:8500/web?wait=500ms&hold=1m&near=_agent&healthy=true",
            "consul:///web?dialect=micro&peer=other&consistency=stale",
            "consul:///web?filter=Service.Meta.v%20%3D%3D%202&token_file=/run/token&timeout=2s",
        ] {
            assert!(discover(address).is_ok(), "{}", reason(address));
        }
        assert!(reason("consul://10.0.0.1:8500").contains("the service is missing"));
        assert!(reason("consul:///web?tags=a").contains("no option `tags`"));
        assert!(reason("consul:///web?wait=soon").contains("`soon` is no time"));
        assert!(reason("consul:///web?wait=1h").contains("between 10ms and 10m"));
        assert!(reason("consul:///web?dialect=zero").contains("plain, kit, micro"));
        assert!(reason("consul:///web?consistency=good").contains("leader, stale or consistent"));
        assert!(reason("consul:///web?passing=maybe").contains("true or false"));
        assert!(reason("consul:///web?healthy=false").contains("critical"));
        assert!(reason("consul:///web?dc=1&dc=2").contains("`dc` stands there twice"));
        assert!(reason("consul://u:s3cret@/web").contains("Consul knows no users"));
    }

    #[cfg(all(feature = "consul", feature = "etcd", feature = "tls"))]
    #[test]
    fn files_for_tls_are_read_when_the_address_is() {
        for scheme in ["consul", "etcd"] {
            let reason = |options: &str| reason(&format!("{scheme}:///web?{options}"));
            assert!(discover(&format!("{scheme}:///web?tls=true")).is_ok());
            assert!(reason("ca_file=/nowhere/ca.pem&tls=true").contains("`ca_file`: /nowhere"));
            let file = tempfile::NamedTempFile::new().unwrap();
            let path = file.path().display();
            assert!(reason(&format!("ca_file={path}&tls=true")).contains("no certificate"));
            assert!(reason(&format!("ca_file={path}")).contains("with `tls=true`"));
            assert!(reason(&format!("cert_file={path}&tls=true")).contains("together"));
        }
    }

    #[cfg(feature = "etcd")]
    #[test]
    fn services_in_etcd_are_read() {
        for dialect in ["plain", "naming", "micro", "zero", "kratos-grpc", "kratos-http", "kit"] {
            let address = format!("etcd://a:2379,b/services/web?dialect={dialect}&quiet=2s");
            assert!(discover(&address).is_ok(), "{}", reason(&address));
        }
        assert!(discover("etcd://orders:secret@a:2379/web").is_ok());
        assert!(reason("etcd:///web?dialect=x").contains("plain, naming"));
        assert!(reason("etcd://orders@a:2379/web").contains("a password"));
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn services_in_kubernetes_are_read() {
        for address in [
            "k8s://shop/web:http",
            "k8s://shop/web",
            "k8s:///web:8080",
            "kubernetes://shop/web:8080",
            "kubernetes:///web.shop:8080",
            "kubernetes:///web.shop.svc.cluster.local:http",
            "k8s:///web.shop:http?zone=a&node=n&family=both&hold=1s&timeout=2s&max_stale=1h",
            "k8s://shop/web:http?kubeconfig=/home/me/.kube/config&context=staging",
            "k8s://shop/web:http?in_cluster=true",
        ] {
            assert!(discover(address).is_ok(), "{}", reason(address));
        }
        assert!(reason("k8s://shop").contains("the service is missing"));
        assert!(reason("k8s://shop/web.shop:80").contains("twice"));
        assert!(reason("k8s:///web.shop.example:80").contains("service.namespace:port"));
        assert!(reason("k8s://shop/Web:80").contains("`Web` is no name"));
        assert!(reason("k8s://shop/web,app:80").contains("is no name"));
        for port in ["0", "65536", "", "a_b"] {
            assert!(reason(&format!("k8s://shop/web:{port}")).contains("is no port"), "{port}");
        }
        assert!(reason("k8s://me@shop/web:80").contains("`context`"));
        assert!(reason("k8s://shop/web:80?family=ipx").contains("prefer_ipv4"));
        assert!(reason("k8s://shop/web:80?kubeconfig=/k&in_cluster=true").contains("`in_cluster`"));
    }

    #[cfg(all(feature = "dns", feature = "json"))]
    #[test]
    fn names_and_files_are_read() {
        for address in [
            "dns:///db.internal:5432",
            "dns://10.0.0.53:53/db.internal:5432",
            "dns:db.internal:5432",
            "db.internal:5432",
            "dns:///_grpc._tcp.shop.internal",
            "DNS:///db.internal:5432",
            "Dns:///_grpc._tcp.shop.internal",
            "dns:my_db:5432",
            "file:///etc/app/endpoints.json",
            "FILE:///etc/App@home/endpoints.json",
        ] {
            assert!(discover(address).is_ok(), "{}", reason(address));
        }
        assert!(reason("dns:///db.internal").contains("host:port"));
        assert!(reason("dns://db.internal:80").contains("write dns:///db.internal:80"));
        assert!(reason("dns://db.internal/db:80").contains("no IP address"));
        assert!(reason("file:///etc/app/endpoints.ini").contains("names no discovery"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(
            scheme in "(consul|etcd|dns|list|unix|ipv6|[a-z]{0,3}):(//)?", rest in ".{0,40}"
        ) {
            let _ = discover(&format!("{scheme}{rest}"));
        }
    }
}
