//! What it means when a server answers but refuses.

use redis::{ErrorKind, RedisError};

/// What to do about an answer that is not a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another server may do it: dial again.
    WrongServer,
    /// The same server will do it later.
    Wait,
    /// It will not do it until its configuration or that of the quota is changed.
    Configuration,
}

/// A replica, or a primary that may not write since its replicas are gone. They may be with the new
/// primary.
const WRONG_SERVER: [&str; 3] = ["READONLY", "MASTERDOWN", "NOREPLICAS"];
const WAIT: [&str; 6] =
    ["LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "OOM", "max number of clients reached"];
const CONFIGURATION: [&str; 10] = [
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "DENIED",
    "MISCONF",
    "MOVED",
    "ASK",
    "CROSSSLOT",
    "WRONGTYPE",
    "NOSCRIPT",
];

impl Refusal {
    pub(crate) fn of(error: &RedisError) -> Self {
        let detail = error.detail().unwrap_or_default();
        let text = match error.code() {
            // Redis before 7 answers ERR for an error of a command within a script.
            Some("ERR") | None => detail,
            Some(code) => code,
        };
        let says = |codes: &[&str]| codes.iter().any(|code| has_word(text, code));
        if says(&WRONG_SERVER) {
            return Self::WrongServer;
        }
        if says(&WAIT) {
            return Self::Wait;
        }
        if says(&CONFIGURATION) {
            return Self::Configuration;
        }
        match error.kind() {
            // No answer at all, or an unknown one, which may pass.
            ErrorKind::Io | ErrorKind::Extension => Self::Wait,
            _ => Self::Configuration,
        }
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    fn refusal(answer: &str) -> Refusal {
        let value: Value = parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        let error = value.extract_error().unwrap_err();
        Refusal::of(&error)
    }

    #[test]
    fn each_answer_has_a_meaning() {
        for answer in [
            "READONLY You can't write against a read only replica.",
            "ERR Error running script (call to f_1): @user_script:16: @user_script: 16: -READONLY You can't write against a read only slave.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "NOREPLICAS Not enough good replicas to write.",
        ] {
            assert_eq!(refusal(answer), Refusal::WrongServer, "{answer}");
        }
        for answer in [
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "ERR max number of clients reached",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
            "BUSIER a code that is not known",
        ] {
            assert_eq!(refusal(answer), Refusal::Wait, "{answer}");
        }
        for answer in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "MOVED 3999 127.0.0.1:6381",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "DENIED Redis is running in protected mode",
            "ERR unknown command 'EVAL'",
            "ERR invalid password",
        ] {
            assert_eq!(refusal(answer), Refusal::Configuration, "{answer}");
        }
    }
}
