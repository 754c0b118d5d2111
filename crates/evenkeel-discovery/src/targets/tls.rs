//! The TLS files that an address names.

use evenkeel_core::BoxError;

use super::Target;

/// The TLS configuration for `https`, from the named files.
#[cfg(feature = "tls")]
pub(super) fn read(target: &Target) -> Result<Option<evenkeel_net::Tls>, BoxError> {
    use evenkeel_net::{Identity, Tls};

    let file = |key: &str| -> Result<Option<Vec<u8>>, BoxError> {
        let Some(path) = target.one(key)? else { return Ok(None) };
        std::fs::read(path).map(Some).map_err(|error| format!("`{key}`: {path}: {error}").into())
    };
    let (authority, chain, key) = (file("ca_file")?, file("cert_file")?, file("key_file")?);
    if authority.is_none() && chain.is_none() && key.is_none() {
        return Ok(None);
    }
    if target.flag("tls")? != Some(true) {
        return Err("files for TLS are of use with `tls=true`".into());
    }
    let mut tls = match &authority {
        Some(pem) => Tls::with_ca(pem)?,
        None => Tls::system(),
    };
    tls = match (&chain, &key) {
        (Some(chain), Some(key)) => tls.identity(Identity::from_pem(chain, key)?),
        (None, None) => tls,
        _ => return Err("`cert_file` and `key_file` are of use together alone".into()),
    };
    Ok(Some(tls))
}

/// Refuses such files if TLS is not compiled in.
#[cfg(not(feature = "tls"))]
pub(super) fn refuse(target: &Target) -> Result<(), BoxError> {
    for key in ["ca_file", "cert_file", "key_file"] {
        if target.one(key)?.is_some() {
            return Err(format!("`{key}` needs the feature `tls`").into());
        }
    }
    Ok(())
}
