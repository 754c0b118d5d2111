//! A headless service of Kubernetes, with the names that CoreDNS makes of its slices.

use evenkeel_discovery::Kubernetes;
use needs::needs;
use serde_json::{Value, json};

use crate::dns_servers::{
    coredns::CoreDns,
    host,
    real::{Cluster, address, ready},
    service,
    watching::Watching,
};

const NAME: &str = "web.shop.svc.cluster.local.";

#[needs("apiserver", "etcd-3.5", "coredns")]
#[tokio::test]
async fn a_headless_service_has_the_ready_endpoints_of_its_slices_in_dns() {
    let cluster = Cluster::start().await.unwrap();
    put(&cluster, "/api/v1/namespaces/shop", json!({ "kind": "Namespace" })).await;
    let spec = json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] });
    let web = json!({ "kind": "Service", "spec": spec });
    put(&cluster, "/api/v1/namespaces/shop/services/web", web).await;
    cluster.put_pods("web-a", 1..=2).await;
    cluster.put_pods("web-b", [3]).await;
    let kubeconfig = cluster.kubeconfig("admin");
    let how = format!("kubernetes {{\n kubeconfig {} tests\n ttl 1\n }}", kubeconfig.display());
    let folder = tempfile::tempdir().unwrap();
    let coredns = CoreDns::start("cluster.local", &how, folder).unwrap();

    // The port of the pods: names of a headless service do not lead to the port of the service.
    let mut hosts = Watching::new(&host(&format!("{NAME}:8080"), coredns.address));
    let mut services = Watching::new(&service(&format!("_http._tcp.{NAME}"), coredns.address));
    let slices = Kubernetes::new(cluster.reader(), "web").namespace("shop").port("http");
    let mut slices = Watching::new(&slices);
    let at = |pods: &[u32]| -> Vec<String> {
        pods.iter().map(|pod| format!("{}:8080", address(*pod))).collect()
    };
    for watching in [&mut hosts, &mut services, &mut slices] {
        let expected = at(&[1, 2, 3]);
        watching.until_addresses(&expected.iter().map(|a| &**a).collect::<Vec<_>>()).await;
    }

    // One becomes unready, one is new.
    cluster.put("web-b", json!({ "endpoints": [ready(3, false), ready(4, true)] })).await;
    for watching in [&mut hosts, &mut services, &mut slices] {
        let expected = at(&[1, 2, 4]);
        watching.until_addresses(&expected.iter().map(|a| &**a).collect::<Vec<_>>()).await;
    }
}

async fn put(cluster: &Cluster, path: &str, mut object: Value) {
    let name = path.rsplit('/').next().unwrap();
    object["apiVersion"] = "v1".into();
    object["metadata"] = json!({ "name": name });
    let request = http::Request::put(path)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes());
    let _: Value = cluster.client().request(request.unwrap()).await.unwrap();
}
