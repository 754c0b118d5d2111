//! How to reach the API server, and with which credentials.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use evenkeel_core::BoxError;
use evenkeel_net::{Dialer, Tls, process_crypto};
use http::{
    Request, Uri,
    header::{AUTHORIZATION, HeaderValue},
};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use tower::{
    Layer,
    filter::{FilterLayer, Predicate},
    util::{MapErr, option_layer},
};

use super::error::NoAccess;
use crate::client::{Dial, Server};

/// The interval of pings to the API server while requests over HTTP/2 are open.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How to reach the API server, and with which credentials.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::discovery::kubernetes::ApiServer;
///
/// let wherever_this_runs = ApiServer::infer();
/// let in_a_pod = ApiServer::in_cluster().timeout(Duration::from_secs(5));
/// let from_outside = ApiServer::kubeconfig("/home/me/.kube/config").context("staging");
/// # let _ = (wherever_this_runs, in_a_pod, from_outside);
/// ```
///
/// Nothing is read before there is a watcher. What cannot be read then is a failure like any other,
/// and is tried again. A token file is read with every request; white space around the token does
/// not count. The rest of a kubeconfig, such as certificate authorities and programs for
/// credentials, is read again at least when the API server no longer knows a token.
/// the API server does not know a token any more.
#[derive(Clone)]
pub struct ApiServer {
    way: Way,
    context: Option<String>,
    token_file: Option<PathBuf>,
    timeout: Duration,
}

#[derive(Clone)]
enum Way {
    Infer,
    InCluster,
    Kubeconfig(PathBuf),
    At(Uri),
    Client(Client),
}

impl ApiServer {
    /// Uses the user's kubeconfig (`KUBECONFIG`, else `~/.kube/config`), or if there is none,
    /// connects as a pod.
    #[must_use]
    pub fn infer() -> Self {
        Self::by(Way::Infer)
    }

    /// Connects as a pod, with the token of its service account.
    #[must_use]
    pub fn in_cluster() -> Self {
        Self::by(Way::InCluster)
    }

    /// Uses this kubeconfig.
    #[must_use]
    pub fn kubeconfig(path: impl Into<PathBuf>) -> Self {
        Self::by(Way::Kubeconfig(path.into()))
    }

    /// Connects to a URI, such as that of `kubectl proxy`. `https` trusts what the system trusts.
    #[must_use]
    pub fn at(uri: Uri) -> Self {
        Self::by(Way::At(uri))
    }

    /// Uses a client that the program has made, with its own timeouts and logs.
    ///
    /// Its connections, its credentials and their renewal are its own as well.
    #[must_use]
    pub fn from_client(client: Client) -> Self {
        Self::by(Way::Client(client))
    }

    fn by(way: Way) -> Self {
        Self { way, context: None, token_file: None, timeout: Duration::from_secs(10) }
    }

    /// Sets which context of a kubeconfig is used. Default: its current one.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>) -> Self {
        self.context = Some(name.into());
        self
    }

    /// Sets a file with the token, which replaces other credentials. Default: none.
    ///
    /// It has no effect on [`from_client`](Self::from_client).
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    /// Sets how long the API server may take for an answer. Default: 10 s.
    ///
    /// A short one gives up on busy servers; a long one is slow to notice that one hangs.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        assert!(Duration::ZERO < timeout, "no answer comes in no time");
        self.timeout = timeout;
        self
    }

    pub(super) fn answers_within(&self) -> Duration {
        self.timeout
    }

    /// A client with newly read credentials.
    pub(super) async fn client(&self) -> Result<Client, BoxError> {
        if let Way::Client(client) = &self.way {
            return Ok(client.clone());
        }
        let made = async {
            let mut config = self.config().await?;
            if let Some(path) = &self.token_file {
                let path = path.to_str().ok_or("the path of the token is not UTF-8")?;
                let token_file = Some(path.to_owned());
                config.auth_info = AuthInfo { token_file, ..AuthInfo::default() };
            }
            connected(config, self.timeout).await
        };
        made.await.map_err(|source: BoxError| NoAccess { source }.into())
    }

    async fn config(&self) -> Result<Config, BoxError> {
        let context = self.context.clone();
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        Ok(match &self.way {
            Way::Infer if self.context.is_some() => Config::from_kubeconfig(&options).await?,
            Way::Infer => Config::infer().await?,
            Way::InCluster => Config::incluster()?,
            Way::Kubeconfig(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(path));
                Config::from_custom_kubeconfig(read.await??, &options).await?
            }
            Way::At(uri) => Config::new(uri.clone()),
            Way::Client(_) => return Err("a client has no configuration".into()),
        })
    }
}

/// A client over our own connections: HTTP/2 with pings, so that a dead peer is noticed in seconds.
/// It makes no retries and no log lines of its own; the loop that follows sources does both.
async fn connected(mut config: Config, timeout: Duration) -> Result<Client, BoxError> {
    let token = token_file(&mut config.auth_info).map(Token::read).transpose()?;
    let token = option_layer(token.map(FilterLayer::new));
    if config.proxy_url.is_some() || config.tls_server_name.is_some() {
        // Both stand between the client and its connector, which is kube's own.
        config.default_retry = false;
        process_crypto()?;
        return Ok(ClientBuilder::try_from(config)?.with_layer(&token).build());
    }
    let server = server_of(&config.cluster_url)?;
    if server.is_tls {
        process_crypto()?;
    }
    // Credentials may come from a program, which blocks until it has them.
    let prepared = tokio::task::spawn_blocking(move || {
        let tls = config.rustls_client_config();
        (config.auth_layer(), tls, config)
    });
    let (auth, tls, config) = prepared.await?;
    let mut dialer = Dialer::new().connect_timeout(timeout).alpn_protocols(&[b"h2", b"http/1.1"]);
    if server.is_tls {
        dialer = dialer.tls(Tls::from_config(tls?.into()));
    }
    let http: legacy::Client<Dial, Body> = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_INTERVAL)
        .http2_adaptive_window(true)
        .build(Dial::new(server, dialer));
    let http = MapErr::new(config.extra_headers_layer()?.layer(http), BoxError::from);
    let http = token.layer(http);
    let base = config.base_uri_layer();
    let namespace = config.default_namespace;
    Ok(match auth? {
        Some(auth) => Client::new(base.layer(auth.layer(http)), namespace),
        None => Client::new(base.layer(http), namespace),
    })
}

/// The token file, if it is the credential in use. kube would take the line break after the token
/// for a part of it; kubectl does not.
fn token_file(auth: &mut AuthInfo) -> Option<PathBuf> {
    let is_first = auth.auth_provider.is_none() && auth.token.is_none();
    let has_password = auth.username.is_some() && auth.password.is_some();
    let path = auth.token_file.take_if(|_| is_first && !has_password)?;
    auth.exec = None;
    Some(path.into())
}

/// The token in a file, which is read for each request.
#[derive(Clone)]
struct Token {
    path: PathBuf,
    /// The last token, in case the file only exists at the start (kubernetes/kubernetes#68164).
    last: HeaderValue,
}

impl Token {
    fn read(path: PathBuf) -> Result<Self, BoxError> {
        let last = bearer(&path)?;
        Ok(Self { path, last })
    }
}

impl Predicate<Request<Body>> for Token {
    type Request = Request<Body>;

    fn check(&mut self, mut request: Request<Body>) -> Result<Request<Body>, BoxError> {
        if let Ok(token) = bearer(&self.path) {
            self.last = token;
        }
        request.headers_mut().insert(AUTHORIZATION, self.last.clone());
        Ok(request)
    }
}

fn bearer(path: &Path) -> Result<HeaderValue, BoxError> {
    let error = |reason: &dyn fmt::Display| format!("the token in {}: {reason}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| error(&e))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(error(&"the file is empty").into());
    }
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.map_err(|_| error(&"there is more than a token in the file"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The server that the URI of a cluster names. kube puts the URI's path before that of requests.
fn server_of(uri: &Uri) -> Result<Server, BoxError> {
    let scheme = uri.scheme_str().unwrap_or("https");
    let host = uri.host().ok_or("the URI of the cluster has no host")?;
    let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    Ok(format!("{scheme}://{host}:{port}").parse()?)
}

impl fmt::Display for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Infer => f.write_str("as kubectl or as a pod"),
            Way::InCluster => f.write_str("as a pod"),
            Way::Kubeconfig(path) => write!(f, "by {}", path.display()),
            Way::At(uri) => write!(f, "at {uri}"),
            Way::Client(_) => f.write_str("by a client of the program"),
        }
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = self.to_string();
        f.debug_struct("ApiServer").field("way", &way).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_without_the_space_around_it_and_as_it_is_now() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write("one\n");
        let mut token = Token::read(file.path().into()).unwrap();
        let mut sent = || {
            let request = token.check(Request::new(Body::empty())).unwrap();
            request.headers()[AUTHORIZATION].to_str().unwrap().to_owned()
        };
        assert_eq!(sent(), "Bearer one");
        write(" two\r\n\n");
        assert_eq!(sent(), "Bearer two");
        write("");
        assert_eq!(sent(), "Bearer two", "it is being written");
        write("th\nree");
        assert_eq!(sent(), "Bearer two");

        let error = |text: &str| {
            write(text);
            Token::read(file.path().into()).err().unwrap().to_string()
        };
        assert!(error("\n").contains("empty"));
        let more = error("s3cret\nand more");
        assert!(more.contains("more than a token") && !more.contains("s3cret"), "{more}");
    }

    #[test]
    fn the_address_of_a_cluster_has_a_port() {
        for (uri, server) in [
            ("https://10.0.0.1/", "https://10.0.0.1:443"),
            ("https://[::1]:6443/k8s/clusters/c-1", "https://[::1]:6443"),
            ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ] {
            assert_eq!(server_of(&uri.parse().unwrap()).unwrap().to_string(), server);
        }
    }
}
