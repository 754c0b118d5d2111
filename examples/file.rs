//! Endpoints from a file that is replaced while the client runs, and that is invalid for some time.

use std::{fs, path::Path};

use bytes::Bytes;
use evenkeel::{balance::BalanceLayer, discovery::File, http::HttpConnector};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{Layer, Service, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let (old, new) = (common::serve_text("old").await?, common::serve_text("new").await?);
    let folder = std::env::temp_dir().join(format!("evenkeel-example-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let path = folder.join("endpoints.yaml");
    replace(&path, &format!("- address: {old}\n  weight: 3\n"))?;

    let mut client = BalanceLayer::weighted_p2c(File::new(&path)?).layer(HttpConnector::new());
    let mut ask = async || -> Result<String, common::BoxError> {
        let request = Request::get("/").body(Empty::<Bytes>::new())?;
        let response = client.ready().await?.call(request).await?;
        Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
    };
    assert_eq!(ask().await?, "old");

    // Without a port: the last good set stays, and a warning names the line.
    replace(&path, "- address: nowhere\n")?;
    assert_eq!(ask().await?, "old");

    replace(&path, &format!("- address: {new}\n"))?;
    let mut asked = 1;
    while ask().await? == "old" {
        asked += 1;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    println!("the new file was in use after {asked} requests");
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Replaces the file atomically, as a deployment should: write a second file, then rename it.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(beside, path)
}
