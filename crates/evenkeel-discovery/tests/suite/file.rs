//! The promises of following a file, with real files and real file system events.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command, time::Duration};

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Update, Watch},
    endpoint::Endpoint,
    error::cause,
};
use evenkeel_discovery::{File, file::FileError};
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

const MINUTE: Duration = Duration::from_secs(60);

/// Long enough that only an event of the file system can explain news.
const NEVER: Duration = Duration::from_secs(3_600);

fn endpoint(n: u16) -> Endpoint {
    format!("10.0.0.1:{n}").parse().unwrap()
}

fn json(ports: &[u16]) -> String {
    let entries: Vec<_> =
        ports.iter().map(|port| format!("{{\"address\": \"10.0.0.1:{port}\"}}")).collect();
    format!("[{}]", entries.join(","))
}

fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

fn by_event(path: &Path) -> File {
    File::new(path).unwrap().poll_interval(NEVER)
}

async fn next(watch: &mut Watch) -> Result<Update, BoxError> {
    timeout(MINUTE, watch.next()).await.expect("news within a minute").expect("no end")
}

async fn set(watch: &mut Watch) -> Vec<Endpoint> {
    match next(watch).await.unwrap() {
        Update::Set(endpoints) => endpoints,
        other => panic!("a file is told as a whole, not as {other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_by_a_rename_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints.json");
    replace(&path, &json(&[1]));
    let mut watch = by_event(&path).watch();
    assert_eq!(set(&mut watch).await, [endpoint(1)]);

    for port in 2..6 {
        replace(&path, &json(&[port]));
        assert_eq!(set(&mut watch).await, [endpoint(port)], "the watch outlives each inode");
    }
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints.json");
    fs::write(&path, json(&[1])).unwrap();
    let mut watch = by_event(&path).watch();
    assert_eq!(set(&mut watch).await, [endpoint(1)]);

    fs::write(&path, json(&[1, 2])).unwrap();

    assert_eq!(set(&mut watch).await, [endpoint(1), endpoint(2)]);
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_through_its_swapped_link() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mount = |version: &str, ports: &[u16]| {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("endpoints.json"), json(ports)).unwrap();
        symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    mount("..2026_01", &[1]);
    symlink("..data/endpoints.json", at("endpoints.json")).unwrap();
    let mut watch = by_event(&at("endpoints.json")).watch();
    assert_eq!(set(&mut watch).await, [endpoint(1)]);

    mount("..2026_02", &[2]);
    fs::remove_dir_all(at("..2026_01")).unwrap();
    assert_eq!(set(&mut watch).await, [endpoint(2)]);
    mount("..2026_03", &[3]);
    assert_eq!(set(&mut watch).await, [endpoint(3)]);
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_set_and_says_where_it_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints.yaml");
    replace(&path, "- address: 10.0.0.1:1\n- address: 10.0.0.1:2\n");
    let file = by_event(&path);
    let mut watch = file.watch();
    assert_eq!(set(&mut watch).await.len(), 2);

    replace(&path, "- address: 10.0.0.1:1\n- address: 10.0.0.1:2\n  wieght: 3\n");
    let error = next(&mut watch).await.unwrap_err();

    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert!(text.contains("endpoints kept: 2"), "{text}");
    let cause = cause::<FileError>(&*error).unwrap();
    assert_eq!(cause.position.unwrap().line, 3, "{cause}");
    assert!(cause.reason.contains("wieght"), "{cause}");
    assert_eq!(set(&mut file.watch()).await.len(), 2, "a new watcher gets the last good set");

    replace(&path, "- address: 10.0.0.1:3\n");
    assert_eq!(set(&mut watch).await, [endpoint(3)]);
}

#[tokio::test]
async fn a_file_that_is_emptied_is_broken_and_one_that_lists_nothing_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints.toml");
    replace(&path, "[[endpoints]]\naddress = \"10.0.0.1:1\"\n");
    let mut watch = by_event(&path).watch();
    assert_eq!(set(&mut watch).await, [endpoint(1)]);

    fs::File::create(&path).unwrap();
    let error = next(&mut watch).await.unwrap_err();
    assert!(cause::<FileError>(&*error).unwrap().reason.contains("empty"), "{error}");

    replace(&path, "endpoints = []\n");
    assert_eq!(set(&mut watch).await, []);
}

#[tokio::test]
async fn a_missing_file_is_news_and_is_read_when_it_appears() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints.json");
    let mut watch = by_event(&path).watch();
    assert!(next(&mut watch).await.is_err());
    assert!(watch.next().now_or_never().is_none(), "it is told once");

    replace(&path, &json(&[1]));
    assert_eq!(set(&mut watch).await, [endpoint(1)]);

    fs::remove_file(&path).unwrap();
    assert!(next(&mut watch).await.is_err(), "the set stays, and watchers know");
    replace(&path, &json(&[2]));
    assert_eq!(set(&mut watch).await, [endpoint(2)]);
}

#[tokio::test]
async fn a_change_without_an_event_is_found_by_the_poll() {
    let folder = tempfile::tempdir().unwrap();
    let (linked, elsewhere) = (tempfile::tempdir().unwrap(), folder.path().join("not/there/yet"));
    let path = linked.path().join("endpoints.json");
    symlink(elsewhere.join("endpoints.json"), &path).unwrap();
    let mut watch = File::new(&path).unwrap().poll_interval(Duration::from_millis(20)).watch();
    assert!(next(&mut watch).await.is_err());

    fs::create_dir_all(&elsewhere).unwrap();
    replace(&elsewhere.join("endpoints.json"), &json(&[1]));

    assert_eq!(set(&mut watch).await, [endpoint(1)]);
}

#[tokio::test]
async fn a_directory_a_pipe_and_bytes_that_are_no_text_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints.json");
    fs::create_dir(&path).unwrap();
    let mut watch = by_event(&path).watch();
    assert!(next(&mut watch).await.is_err());
    fs::remove_dir(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut piped = by_event(&path).watch();
    let refused = next(&mut piped).await.unwrap_err();
    assert!(
        std::error::Error::source(&*refused).unwrap().to_string().contains("not a regular file")
    );
    drop(piped);
    fs::remove_file(&path).unwrap();
    let mut told = String::new();
    // The reports in between depend on when the ends of the directory and the pipe are noticed.
    while !told.contains("UTF-8") {
        fs::write(&path, b"[\xff]").unwrap();
        let error = next(&mut watch).await.unwrap_err();
        told = std::error::Error::source(&*error).unwrap().to_string();
    }
    assert_eq!(told, "byte 2 is not UTF-8; save the file as UTF-8");
}

#[test]
fn a_name_without_a_known_format_is_refused_at_once() {
    let error = File::new("/etc/endpoints.ini").unwrap_err();
    assert!(error.to_string().contains("endpoints.ini"), "{error}");
    assert!(File::new("/etc/ENDPOINTS.YML").is_ok());
}
