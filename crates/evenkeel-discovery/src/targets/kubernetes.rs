//! Services in Kubernetes by their address.

use std::sync::Arc;

use evenkeel_core::{BoxError, number::digits};

use super::{
    Made, Target,
    options::{only, positive, service, with},
};
use crate::kubernetes::{ApiServer, Family, Kubernetes, is_name};

pub(super) fn kubernetes(target: &Target) -> Made {
    only(target, "kubeconfig context in_cluster zone node family timeout hold max_stale")?;
    if target.user.is_some() {
        return Err("who asks stands in the kubeconfig: write `context`".into());
    }
    let path = service(target)?;
    let (name, port) = path.split_once(':').map_or((path, None), |(name, port)| (name, Some(port)));
    // The namespace may follow the service, as in DNS.
    let mut labels = name.split('.');
    let service = labels.next().unwrap_or_default();
    let namespace = match (&*target.authority, labels.next()) {
        ("", namespace) => namespace,
        (namespace, None) => Some(namespace),
        _ => return Err("the namespace stands there twice".into()),
    };
    if labels.next().is_some_and(|label| label != "svc") {
        return Err("write service.namespace:port, or namespace/service:port".into());
    }
    if let Some(wrong) = [Some(service), namespace].into_iter().flatten().find(|n| !is_name(n)) {
        return Err(format!("`{wrong}` is no name in Kubernetes").into());
    }
    let mut kubernetes = Kubernetes::new(api_server(target)?, service);
    if let Some(namespace) = namespace {
        kubernetes = kubernetes.namespace(namespace);
    }
    kubernetes = match port.map(|port| (port, digits(port))) {
        None => kubernetes,
        Some((_, Some(number @ 1..))) => kubernetes.port_number(number),
        Some((name, None)) if is_name(name) && !is_number(name) => kubernetes.port(name),
        Some((port, _)) => return Err(format!("`{port}` is no port").into()),
    };
    kubernetes = with(kubernetes, target.one("zone")?, Kubernetes::zone);
    kubernetes = with(kubernetes, target.one("node")?, Kubernetes::node);
    if let Some(family) = target.one("family")? {
        kubernetes = kubernetes.family(family_of(family)?);
    }
    kubernetes = with(kubernetes, target.time("hold")?, Kubernetes::hold);
    kubernetes = with(kubernetes, target.time("max_stale")?, Kubernetes::max_stale);
    Ok(Arc::new(kubernetes))
}

fn api_server(target: &Target) -> Result<ApiServer, BoxError> {
    let mut server = match (target.one("kubeconfig")?, target.flag("in_cluster")?) {
        (Some(_), Some(true)) => return Err("it is `kubeconfig` or `in_cluster`".into()),
        (Some(path), _) => ApiServer::kubeconfig(path),
        (None, Some(true)) => ApiServer::in_cluster(),
        (None, _) => ApiServer::infer(),
    };
    server = with(server, target.one("context")?, ApiServer::context);
    server = with(server, positive(target, "timeout")?, ApiServer::timeout);
    Ok(server)
}

fn family_of(text: &str) -> Result<Family, BoxError> {
    Ok(match text {
        "prefer_ipv4" => Family::PreferIpv4,
        "prefer_ipv6" => Family::PreferIpv6,
        "ipv4" => Family::Ipv4,
        "ipv6" => Family::Ipv6,
        "both" => Family::Both,
        _ => {
            let known = "prefer_ipv4, prefer_ipv6, ipv4, ipv6, both";
            return Err(format!("there is no family `{text}`; there are {known}").into());
        }
    })
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
