//! An agent that speaks HTTPS, and asks for a certificate.

use evenkeel_discovery::{
    consul::Agents,
    tls::{Identity, Tls},
};
use needs::needs;
use serde_json::json;

use crate::consul::{
    real::Agent, servers::free_ports, tls_front::Authority, watching::Watching, web,
};

#[needs("consul")]
#[tokio::test]
async fn an_agent_is_verified_and_asks_for_a_certificate() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (chain, key) = authority.certify("127.0.0.1");
    let [https] = free_ports();
    let configuration = json!({ "ports": { "https": https }, "verify_incoming_https": true,
        "ca_file": write("ca.pem", &authority.pem()),
        "cert_file": write("agent.pem", &chain), "key_file": write("agent.key", &key) });
    let agent = Agent::with(configuration, &["-dev"], None).await.unwrap();
    agent.enter(1).await;
    let url = format!("https://127.0.0.1:{https}");
    let agents = |tls: Tls| Agents::at([&*url]).unwrap().tls(tls);
    let trusted = || Tls::with_ca(authority.pem().as_bytes()).unwrap();
    let (chain, key) = authority.certify("client.internal");
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();

    let known = trusted().identity(identity.clone());
    Watching::new(&web(agents(known))).until_addresses(&["10.0.0.1:1"]).await;

    Watching::new(&web(agents(trusted()))).until_failure().await;
    let foreign = Tls::with_ca(Authority::new().pem().as_bytes()).unwrap();
    Watching::new(&web(agents(foreign.identity(identity)))).until_failure().await;
}
