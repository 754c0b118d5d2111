//! The question about a service.

use std::{sync::Arc, time::Duration};

use super::agent::encode;

/// The question about a service, apart from the index that it blocks on.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) tags: Vec<Arc<str>>,
    pub(super) filter: Option<Arc<str>>,
    pub(super) datacenter: Option<Arc<str>>,
    pub(super) near: Option<Arc<str>>,
    pub(super) peer: Option<Arc<str>>,
    pub(super) consistency: Consistency,
}

/// Which server of Consul may answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// The leader, in its own view. The default. It returns old data only in the moments in which
    /// another leader has been elected without its knowledge.
    #[default]
    Leader,
    /// Any server. This spares the leader and also works while there is no leader; the answer may
    /// be some milliseconds old.
    Stale,
    /// The leader, after it has confirmed its leadership with the others. Costs a round of messages
    /// each time.
    Consistent,
}

impl Query {
    /// The path to ask for. The agent is not asked for healthy instances only, since that would
    /// leave out those in maintenance too.
    pub(super) fn path(&self, service: &str, blocks_on: Option<(u64, Duration)>) -> String {
        let mut path = format!("/v1/health/service/{}", encode(service));
        let mut separator = '?';
        let mut add = |name: &str, value: &str| {
            path.push(separator);
            separator = '&';
            path.push_str(name);
            path.push('=');
            path.push_str(&encode(value));
        };
        if let Some(filter) = self.expression() {
            add("filter", &filter);
        }
        for (name, value) in [("dc", &self.datacenter), ("near", &self.near), ("peer", &self.peer)]
        {
            if let Some(value) = value {
                add(name, value);
            }
        }
        if let Some((index, wait)) = blocks_on {
            add("index", &index.to_string());
            add("wait", &format!("{}ms", wait.as_millis()));
        }
        if let Some(flag) = self.consistency.flag() {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(flag);
        }
        path
    }

    /// Tags are part of the filter: as a separate parameter they are deprecated.
    fn expression(&self) -> Option<String> {
        let tags = self.tags.iter().map(|tag| format!("{} in Service.Tags", quoted(tag)));
        let filter = self.filter.iter().map(|filter| format!("({filter})"));
        tags.chain(filter).reduce(|all, one| format!("{all} and {one}"))
    }
}

impl Consistency {
    fn flag(self) -> Option<&'static str> {
        match self {
            Self::Leader => None,
            Self::Stale => Some("stale"),
            Self::Consistent => Some("consistent"),
        }
    }
}

/// Quotes a text for the filter language. Old agents know no escapes, but raw texts between
/// backticks.
pub(crate) fn quoted(text: &str) -> String {
    if !text.contains(['"', '\\']) {
        return format!("\"{text}\"");
    }
    if !text.contains('`') {
        return format!("`{text}`");
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_asked_for_is_in_the_path() {
        let plain = Query::default();
        assert_eq!(plain.path("web", None), "/v1/health/service/web");
        let wait = Duration::from_millis(1_500);
        assert_eq!(
            plain.path("a/b", Some((7, wait))),
            "/v1/health/service/a%2Fb?index=7&wait=1500ms"
        );

        let consistent = Query { consistency: Consistency::Consistent, ..Query::default() };
        assert_eq!(consistent.path("web", None), "/v1/health/service/web?consistent");

        let all = Query {
            tags: vec!["v1".into(), "a\"b".into()],
            filter: Some("Service.Meta.k == 1 or Node.Node == n".into()),
            datacenter: Some("dc2".into()),
            near: Some("_agent".into()),
            peer: Some("other".into()),
            consistency: Consistency::Stale,
        };
        let expected = r#""v1" in Service.Tags and `a"b` in Service.Tags and (Service.Meta.k == 1 or Node.Node == n)"#;
        assert_eq!(all.expression().as_deref(), Some(expected));
        assert!(all.path("web", None).ends_with("&dc=dc2&near=_agent&peer=other&stale"));
    }
}
