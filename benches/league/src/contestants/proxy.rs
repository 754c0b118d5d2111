//! The common parts of all proxies: a program, a template, and a plain client in front.

use std::{ffi::OsStr, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use evenkeel_rig::load::Client;
use futures_util::FutureExt;
use tokio::{net::TcpStream, time::sleep};

use super::hyper::{get, plain};
use crate::{
    BoxError,
    scene::{Protocol, Scene},
};

/// A proxy that does not accept connections within this time has failed to start.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// A call through the proxy: hyper's client, over HTTP/1.1.
pub(super) fn client(scene: &Scene) -> Client {
    let (client, address) = (plain(Protocol::Http1), scene.lane.proxy());
    Arc::new(move |number| {
        let client = client.clone();
        async move { get(client, format!("http://{address}/{number}").parse()?).await }.boxed()
    })
}

/// Fills in a template: `{{name}}` becomes its value.
pub(super) fn fill(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    })
}

/// Formats one line for each endpoint.
pub(super) fn lines<T>(items: impl IntoIterator<Item = T>, line: impl Fn(T) -> String) -> String {
    items.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Writes a file as a whole, so that no reader sees half of it.
pub(super) fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}

/// Waits until the proxy accepts connections.
pub(super) async fn accepts(address: SocketAddr, name: impl AsRef<OsStr>) -> Result<(), BoxError> {
    const STEP: Duration = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    while TcpStream::connect(address).await.is_err() {
        if STARTS_WITHIN < waited {
            return Err(format!("{} does not start", name.as_ref().display()).into());
        }
        sleep(STEP).await;
        waited += STEP;
    }
    Ok(())
}
