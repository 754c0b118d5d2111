//! The schemes of this crate.

use std::sync::Arc;

use evenkeel_core::{
    BoxError,
    endpoint::{Address, AddressError, Endpoint},
};

#[cfg(feature = "kubernetes")]
use super::kubernetes::kubernetes;
#[cfg(any(feature = "consul", feature = "etcd"))]
use super::options::{only, positive, service, with};
use super::{Made, Target, hidden::quoted};
use crate::Fixed;

/// Each scheme, and the function that makes a discovery of it.
pub(super) const SCHEMES: [(&str, fn(&Target) -> Made); 10] = [
    ("list", list),
    ("ipv4", list),
    ("ipv6", list),
    ("unix", unix),
    ("file", file),
    ("dns", dns),
    ("consul", consul),
    ("etcd", etcd),
    ("k8s", kubernetes),
    ("kubernetes", kubernetes),
];

fn list(target: &Target) -> Made {
    target.only(&[])?;
    if target.user.is_some() {
        return Err(NO_USER.into());
    }
    if !target.authority.is_empty() {
        let address = quoted(&target.authority);
        let example = format!("write {}:10.0.0.1:80", target.scheme);
        return Err(format!("no `//` stands before {address}: {example}").into());
    }
    Ok(Arc::new(Fixed::new(endpoints(&target.path)?)))
}

const NO_USER: &str = "an endpoint has no user: leave out what stands before the `@`";

/// The endpoints of addresses that are separated by commas.
fn endpoints(list: &str) -> Result<Vec<Endpoint>, BoxError> {
    let addresses = list.split(',').map(str::trim).filter(|address| !address.is_empty());
    let endpoints: Vec<_> = addresses.map(endpoint).collect::<Result<_, _>>()?;
    if endpoints.is_empty() {
        return Err("there is no address in the list".into());
    }
    Ok(endpoints)
}

fn endpoint(text: &str) -> Result<Endpoint, BoxError> {
    if text.contains('@') {
        return Err(NO_USER.into());
    }
    let reason = match text.parse() {
        Ok(endpoint) => return Ok(endpoint),
        Err(AddressError { reason, .. }) => reason,
    };
    let quoted = quoted(text);
    Err(if let Ok(ip) = text.parse::<std::net::Ipv6Addr>() {
        format!("{quoted}: an IPv6 address stands in brackets: write `[{ip}]:80`")
    } else if text.contains([' ', ';', '|']) {
        format!("{quoted} is no address; between two of them stand commas: 10.0.0.1:80,10.0.0.2:80")
    } else {
        format!(
            "{quoted} is no address: {reason} (write 10.0.0.1:80, [::1]:80, host:80 or unix:/path)"
        )
    }
    .into())
}

fn unix(target: &Target) -> Made {
    Ok(Arc::new(Fixed::parse([&*target.text])?))
}

/// One or more hosts and ports without a scheme.
pub(super) fn plain(text: &str) -> Made {
    let endpoints = endpoints(text)?;
    match &endpoints[..] {
        // An address with the name of an interface is not a DNS name.
        [Endpoint { address: Address::Name { host, port }, .. }] if !host.contains('%') => {
            dns(&Target::parse(&format!("dns:///{host}:{port}"))?)
        }
        _ => Ok(Arc::new(Fixed::new(endpoints))),
    }
}

#[cfg(any(feature = "json", feature = "yaml", feature = "toml"))]
fn file(target: &Target) -> Made {
    target.only(&[])?;
    if !target.authority.is_empty() {
        return Err("a file has no host: write file:///path".into());
    }
    let path = match target.text.strip_prefix("file://") {
        Some(_) => format!("/{}", target.path),
        None => target.path.clone(),
    };
    Ok(Arc::new(crate::File::new(path)?))
}

#[cfg(not(any(feature = "json", feature = "yaml", feature = "toml")))]
fn file(_: &Target) -> Made {
    Err("it needs one of the features `json`, `yaml` and `toml`".into())
}

#[cfg(feature = "dns")]
fn dns(target: &Target) -> Made {
    target.only(&[])?;
    if target.user.is_some() || target.path.contains('@') {
        return Err("DNS knows no users: leave out what stands before the `@`".into());
    }
    if target.path.is_empty() && !target.authority.is_empty() {
        let name = &target.authority;
        return Err(format!(
            "a `/` is missing after the server, or before the name: write dns:///{name}"
        )
        .into());
    }
    if target.path.starts_with('_') && !target.path.contains(':') {
        return Ok(Arc::new(crate::Dns::srv(&target.text)?));
    }
    Ok(Arc::new(crate::Dns::new(&target.text)?))
}

#[cfg(not(feature = "dns"))]
fn dns(_: &Target) -> Made {
    Err("it needs the feature `dns`".into())
}

/// The servers of a registry as URLs, with the registry's default port if there is none.
#[cfg(any(feature = "consul", feature = "etcd"))]
fn servers(target: &Target, host: &str, port: u16) -> Result<Vec<String>, BoxError> {
    let scheme = if target.flag("tls")?.unwrap_or(false) { "https" } else { "http" };
    let authority = if target.authority.is_empty() { host } else { &target.authority };
    let servers = authority.split(',').map(str::trim).filter(|server| !server.is_empty());
    Ok(servers
        .map(|server| {
            let has_port = server.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
            if has_port {
                format!("{scheme}://{server}")
            } else {
                format!("{scheme}://{server}:{port}")
            }
        })
        .collect())
}

#[cfg(feature = "consul")]
fn consul(target: &Target) -> Made {
    use std::time::Duration;

    use crate::consul::Consul;

    only(
        target,
        "tag filter dc near peer consistency dialect ns partition passing healthy wait \
         hold timeout max_stale token token_file tls ca_file cert_file key_file",
    )?;
    if target.user.is_some() {
        return Err("Consul knows no users: write `token_file`".into());
    }
    let agents = agents(target)?;
    let service = service(target)?;
    let mut consul = target.all("tag").fold(Consul::new(agents, service), Consul::tag);
    consul = with(consul, target.one("filter")?, Consul::filter);
    consul = with(consul, target.one("dc")?, Consul::datacenter);
    consul = with(consul, target.one("near")?, Consul::near);
    if target.flag("healthy")? == Some(false) {
        return Err("who is critical is left out in any case: leave `healthy` out, too".into());
    }
    if target.flag("passing")?.or(target.flag("healthy")?) == Some(true) {
        consul = consul.passing_only();
    }
    if let Some(wait) = target.time("wait")? {
        let bounds = Duration::from_millis(10)..=Duration::from_secs(600);
        if !bounds.contains(&wait) {
            return Err("`wait` lies between 10ms and 10m".into());
        }
        consul = consul.wait(wait);
    }
    consul = with(consul, target.time("hold")?, Consul::hold);
    consul = with(consul, target.time("max_stale")?, Consul::max_stale);
    Ok(Arc::new(of_consul(target, consul)?))
}

/// What is asked, of which servers, and how the answer is read.
#[cfg(feature = "consul")]
fn of_consul(target: &Target, consul: crate::Consul) -> Result<crate::Consul, BoxError> {
    use crate::consul::Consistency;

    let consul = with(consul, target.one("peer")?, crate::Consul::peer);
    let consul = match target.one("consistency")? {
        None | Some("leader") => consul,
        Some("stale") => consul.consistency(Consistency::Stale),
        Some("consistent") => consul.consistency(Consistency::Consistent),
        Some(_) => return Err("`consistency` is leader, stale or consistent".into()),
    };
    match target.one("dialect")? {
        None | Some("plain" | "kit") => Ok(consul),
        Some("micro") => Ok(consul.go_micro()),
        Some(other) => {
            Err(format!("there is no dialect `{other}`; there are plain, kit, micro").into())
        }
    }
}

#[cfg(feature = "consul")]
fn agents(target: &Target) -> Result<crate::consul::Agents, BoxError> {
    use crate::consul::Agents;

    let servers = servers(target, "127.0.0.1", 8_500)?;
    let mut agents = Agents::at(servers.iter().map(|server| &**server))?;
    agents = with(agents, target.one("token")?, Agents::token);
    agents = with(agents, target.one("token_file")?, Agents::token_file);
    agents = with(agents, target.one("ns")?, Agents::namespace);
    agents = with(agents, target.one("partition")?, Agents::partition);
    agents = with(agents, positive(target, "timeout")?, Agents::timeout);
    #[cfg(feature = "tls")]
    let agents = with(agents, super::tls::read(target)?, Agents::tls);
    #[cfg(not(feature = "tls"))]
    super::tls::refuse(target)?;
    Ok(agents)
}

#[cfg(not(feature = "consul"))]
fn consul(_: &Target) -> Made {
    Err("it needs the feature `consul`".into())
}

#[cfg(feature = "etcd")]
fn etcd(target: &Target) -> Made {
    use std::time::Duration;

    use crate::etcd::{Cluster, Etcd};

    only(target, "dialect quiet hold timeout max_stale tls ca_file cert_file key_file")?;
    let servers = servers(target, "127.0.0.1", 2_379)?;
    let mut cluster = Cluster::at(servers.iter().map(|server| &**server))?;
    match &target.user {
        Some((name, Some(password))) => cluster = cluster.user(&**name, &**password),
        Some((_, None)) => return Err("the user needs a password: write name:password@".into()),
        None => {}
    }
    cluster = with(cluster, positive(target, "timeout")?, Cluster::timeout);
    #[cfg(feature = "tls")]
    let cluster = with(cluster, super::tls::read(target)?, Cluster::tls);
    #[cfg(not(feature = "tls"))]
    super::tls::refuse(target)?;
    let service = service(target)?;
    let dialect = target.one("dialect")?.unwrap_or("plain");
    let mut etcd = with_dialect(Etcd::new(cluster, service), service, dialect)?;
    if let Some(quiet) = target.time("quiet")? {
        if quiet < Duration::from_millis(100) {
            return Err("`quiet` is at least 100ms".into());
        }
        etcd = etcd.quiet(quiet);
    }
    etcd = with(etcd, target.time("hold")?, Etcd::hold);
    etcd = with(etcd, target.time("max_stale")?, Etcd::max_stale);
    Ok(Arc::new(etcd))
}

#[cfg(feature = "etcd")]
fn with_dialect(etcd: crate::Etcd, service: &str, dialect: &str) -> Result<crate::Etcd, BoxError> {
    use crate::etcd::dialect::{Kit, Kratos, Micro, Naming, Plain, Zero};

    Ok(match dialect {
        "plain" => etcd.dialect(Plain),
        "naming" => etcd.dialect(Naming),
        "micro" => etcd.dialect(Micro),
        "zero" => etcd.dialect(Zero),
        "kratos-grpc" => etcd.dialect(Kratos::new("grpc")),
        "kratos-http" => etcd.dialect(Kratos::new("http")),
        "kit" => etcd.dialect(Kit::new(&format!("/{service}"))),
        _ => {
            let known = "plain, naming, micro, zero, kratos-grpc, kratos-http, kit";
            return Err(format!("there is no dialect `{dialect}`; there are {known}").into());
        }
    })
}

#[cfg(not(feature = "etcd"))]
fn etcd(_: &Target) -> Made {
    Err("it needs the feature `etcd`".into())
}

#[cfg(not(feature = "kubernetes"))]
fn kubernetes(_: &Target) -> Made {
    Err("it needs the feature `kubernetes`".into())
}
