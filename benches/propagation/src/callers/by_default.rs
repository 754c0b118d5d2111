//! The delays of other systems with their defaults. They are derived from sources and
//! documentation, not measured.

/// One system, and the delays of its callers with its defaults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByDefault {
    pub(crate) system: &'static str,
    pub(crate) join: &'static str,
    pub(crate) leave: &'static str,
    pub(crate) crash: &'static str,
    /// The source of the numbers.
    pub(crate) source: &'static str,
}

/// All systems, in the order of the table.
pub(crate) const ALL: [ByDefault; 5] = [
    ByDefault {
        system: "go-micro v2, Consul",
        join: "ms by its watch, at most 60 s while that is broken",
        leave: "the same; cut off after 1 s",
        crash: "60 to 90 s (30 to 60 s with its flags) until the TTL check is critical, then as for a join",
        source: "v2.9.1: RegisterTTL 90 s (flag 60 s), RegisterInterval 30 s, registry/cache TTL 1 min, \
                 GracefulStop 1 s",
    },
    ByDefault {
        system: "go-kit, etcd",
        join: "ms",
        leave: "ms",
        crash: "6.7 to 10.5 s, the lease",
        source: "sd/etcdv3: TTL 10 s, heartbeat 3 s; etcd looks for dead leases every 0.5 s",
    },
    ByDefault {
        system: "grpc-go, DNS round robin",
        join: "never until a connection breaks, and then not within 30 s of the last answer",
        leave: "ms, by GOAWAY",
        crash: "ms where connections are reset, else when TCP gives up (15 min)",
        source: "internal/resolver/dns: asks again only after ResolveNow, MinResolutionInterval 30 s; \
                 client keepalive off",
    },
    ByDefault {
        system: "Traefik, consulCatalog",
        join: "at most 17 s",
        leave: "at most 17 s",
        crash: "the check's time and at most 17 s",
        source: "provider consulCatalog: refreshInterval 15 s, watch off; providersThrottleDuration 2 s",
    },
    ByDefault {
        system: "nginx",
        join: "at a reload, or after the TTL with `resolve`",
        leave: "at a reload, or after the TTL with `resolve`",
        crash: "the first failed request, per worker, and again every 10 s",
        source: "ngx_http_upstream: max_fails 1, fail_timeout 10 s, the state of each worker its own",
    },
];
