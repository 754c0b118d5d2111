//! The agents that Consul's own programs would ask, from the environment.

use super::Agents;
use crate::client::ServerError;

/// An environment variable that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {reason}")]
#[non_exhaustive]
pub struct EnvironmentError {
    /// Its name.
    pub variable: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Agents {
    /// The agent that Consul's own programs would ask, as the environment names it.
    ///
    /// Reads `CONSUL_HTTP_ADDR` (default `127.0.0.1:8500`; also `http://`, `https://` and
    /// `unix://`), `CONSUL_HTTP_SSL`, `CONSUL_HTTP_TOKEN_FILE` (the file is read again for each
    /// query) or else `CONSUL_HTTP_TOKEN`, `CONSUL_NAMESPACE`, `CONSUL_PARTITION`, and with the
    /// feature `tls` `CONSUL_CACERT`, `CONSUL_CLIENT_CERT` and `CONSUL_CLIENT_KEY`. A server is
    /// always verified: `CONSUL_HTTP_SSL_VERIFY=false` is an error.
    ///
    /// # Errors
    /// If one of them cannot be used.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(
        read: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, EnvironmentError> {
        let flag = |variable| match read(variable).as_deref() {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(EnvironmentError {
                variable,
                reason: format!("`{other}` is neither true nor false"),
            }),
        };
        if flag("CONSUL_HTTP_SSL_VERIFY")? == Some(false) {
            let reason = "a server is always verified: name its authority in CONSUL_CACERT".into();
            return Err(EnvironmentError { variable: "CONSUL_HTTP_SSL_VERIFY", reason });
        }
        let mut server = read("CONSUL_HTTP_ADDR").unwrap_or_else(|| "127.0.0.1:8500".into());
        if flag("CONSUL_HTTP_SSL")? == Some(true) {
            let bare = server.strip_prefix("http://").unwrap_or(&server);
            if !bare.contains("://") {
                server = format!("https://{bare}");
            }
        }
        let unusable = |error: ServerError| EnvironmentError {
            variable: "CONSUL_HTTP_ADDR",
            reason: error.to_string(),
        };
        let mut agents = Self::at([&*server]).map_err(unusable)?;
        if let Some(path) = read("CONSUL_HTTP_TOKEN_FILE") {
            agents = agents.token_file(path);
        } else if let Some(token) = read("CONSUL_HTTP_TOKEN") {
            agents = agents.token(token);
        }
        if let Some(namespace) = read("CONSUL_NAMESPACE") {
            agents = agents.namespace(namespace);
        }
        if let Some(partition) = read("CONSUL_PARTITION") {
            agents = agents.partition(partition);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = tls(&read)? {
            agents = agents.tls(tls);
        }
        Ok(agents)
    }
}

#[cfg(feature = "tls")]
fn tls(
    read: &impl Fn(&'static str) -> Option<String>,
) -> Result<Option<evenkeel_net::Tls>, EnvironmentError> {
    use evenkeel_net::{Identity, Tls, TlsError};

    let file = |variable| -> Result<Option<Vec<u8>>, EnvironmentError> {
        let Some(path) = read(variable) else { return Ok(None) };
        let bytes = std::fs::read(&path);
        let error = |error| EnvironmentError { variable, reason: format!("{path}: {error}") };
        bytes.map(Some).map_err(error)
    };
    let unusable =
        |variable| move |error: TlsError| EnvironmentError { variable, reason: error.to_string() };
    let authority = file("CONSUL_CACERT")?;
    let identity = (file("CONSUL_CLIENT_CERT")?, file("CONSUL_CLIENT_KEY")?);
    let mut tls = match &authority {
        Some(pem) => Tls::with_ca(pem).map_err(unusable("CONSUL_CACERT"))?,
        None => Tls::system(),
    };
    match &identity {
        (Some(chain), Some(key)) => {
            let identity = Identity::from_pem(chain, key);
            tls = tls.identity(identity.map_err(unusable("CONSUL_CLIENT_CERT"))?);
        }
        (None, None) => {}
        _ => {
            let reason = "a certificate and its key are of use together alone".into();
            return Err(EnvironmentError { variable: "CONSUL_CLIENT_CERT", reason });
        }
    }
    Ok((authority.is_some() || identity.0.is_some()).then_some(tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(variables: &[(&str, &str)]) -> Result<String, String> {
        let read = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let agents = Agents::from_variables(read).map_err(|error| error.to_string())?;
        Ok(format!("{agents:?}"))
    }

    #[test]
    fn the_variables_of_consuls_own_programs_are_read() {
        assert!(agents(&[]).unwrap().contains("127.0.0.1:8500"));
        let secure = [("CONSUL_HTTP_ADDR", "consul.internal:8501"), ("CONSUL_HTTP_SSL", "true")];
        let secure = agents(&secure).unwrap();
        assert!(secure.contains("consul.internal:8501"), "{secure}");
        assert!(secure.contains("is_tls: true"), "{secure}");
        let socket = agents(&[("CONSUL_HTTP_ADDR", "unix:///run/consul.sock")]).unwrap();
        assert!(socket.contains("/run/consul.sock"), "{socket}");
        let all = [
            ("CONSUL_HTTP_TOKEN", "s3cret"),
            ("CONSUL_HTTP_TOKEN_FILE", "/run/token"),
            ("CONSUL_NAMESPACE", "team"),
            ("CONSUL_PARTITION", "part"),
        ];
        let all = agents(&all).unwrap();
        for expected in ["/run/token", "team", "part"] {
            assert!(all.contains(expected), "{all}");
        }
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_refused() {
        let error = agents(&[("CONSUL_HTTP_ADDR", "nonsense")]).unwrap_err();
        assert!(error.starts_with("CONSUL_HTTP_ADDR: `nonsense` is no server"), "{error}");
        assert!(agents(&[("CONSUL_HTTP_SSL", "perhaps")]).is_err());
        assert!(agents(&[("CONSUL_HTTP_SSL_VERIFY", "false")]).is_err());
    }
}
