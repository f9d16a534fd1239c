package config

// Keys of Milena that Kafka does not have.
var (
	// LogDirReserveBytes is log.dir.reserve.bytes.
	LogDirReserveBytes = broker[int64]("log.dir.reserve.bytes", "268435456", "Free bytes on the disk of a data directory below which produce is refused; reading, deleting and admin go on.", atLeast(0), own)
	// MetricsListener is metrics.listener.
	MetricsListener = broker[string]("metrics.listener", "", "host:port where metrics are served in Prometheus' form; empty serves none. Keep it on loopback: it has no login.", own)
	// Cluster is cluster.
	Cluster = broker[[]string]("cluster", "", "The first one, three or five brokers, id@host:port each, separated by commas: host:port is where other brokers reach it. They hold the coordination store together; node.id says which one this is.", own)
	// Join is join.
	Join = broker[[]string]("join", "", "host:port of brokers of a cluster (their peer addresses) that this broker joins.", own)
	// Coordinator is coordinator.
	Coordinator = broker[string]("coordinator", "", "Where the cluster's metadata is kept: empty for the store inside the brokers, etcd://host:port,... or zookeeper://host:port,.../path for one that exists.", own)
	// PeerListener is peer.listener.
	PeerListener = broker[string]("peer.listener", "", "host:port at which other brokers reach this one. Empty: the own entry of cluster, or none. Anything but loopback needs peer.tls.*.", own)
	// PeerAdvertised is peer.advertised.
	PeerAdvertised = broker[string]("peer.advertised", "", "host:port that other brokers are told; empty: the own entry of cluster, or peer.listener.", own)
	// PeerTLSCertificate is peer.tls.certificate.
	PeerTLSCertificate = broker[string]("peer.tls.certificate", "", "PEM file with this broker's certificate towards other brokers.", own)
	// PeerTLSKey is peer.tls.key.
	PeerTLSKey = broker[string]("peer.tls.key", "", "PEM file with the key of peer.tls.certificate.", own)
	// PeerTLSCA is peer.tls.ca.
	PeerTLSCA = broker[string]("peer.tls.ca", "", "PEM file with the authority that signs the certificates of all brokers.", own)
	// BalancerEnable is balancer.enable.
	BalancerEnable = broker[bool]("balancer.enable", "false", "Whether the controller moves replicas and leaders by itself until the brokers are even, a few at a time (balancer.max.moves), throttled (balancer.rate), and only while nothing is under-replicated.", clusterWide, own)
	// BalancerIntervalSeconds is balancer.interval.seconds.
	BalancerIntervalSeconds = broker[int32]("balancer.interval.seconds", "60", "How often the balancer looks whether the brokers are even.", atLeast(1), clusterWide, own)
	// BalancerMaxMoves is balancer.max.moves.
	BalancerMaxMoves = broker[int32]("balancer.max.moves", "10", "Partitions that the balancer moves at the same time.", atLeast(1), clusterWide, own)
	// BalancerRate is balancer.rate.
	BalancerRate = broker[int64]("balancer.rate", "52428800", "Bytes per second that a broker sends and takes for the balancer's moves: it sets and removes the replication throttles itself, except of topics that have some. 0: not throttled.", atLeast(0), clusterWide, own)
	// BalancerThrottled is balancer.throttled.
	BalancerThrottled = broker[[]string]("balancer.throttled", "", "Topics whose throttles the balancer has set and will remove, * for the rates. The controller's own note.", clusterWide, own)
	// NetworkCongestionControl is network.congestion.control.
	NetworkCongestionControl = broker[string]("network.congestion.control", "", "TCP congestion control of accepted connections, for example cubic or bbr; empty leaves it to the system.", own)
	// LoggingLevel is logging.level.
	LoggingLevel = broker[string]("logging.level", "info", "What the broker logs about itself.", oneOf("debug", "info", "warn", "error"), own)
	// LoggingFormat is logging.format.
	LoggingFormat = broker[string]("logging.format", "text", "Form of the broker's own log lines.", oneOf("text", "json"), own)
)

// Keys of client metrics subscriptions (KIP-714).
var (
	_ = clientMetrics[[]string]("metrics", "", "Prefixes of the metrics that clients send; * is all.", inert(whyTelemetry))
	_ = clientMetrics[int32]("interval.ms", "300000", "How often clients send.", within(100, 3600000), inert(whyTelemetry))
	_ = clientMetrics[[]string]("match", "", "Which clients send: name=pattern, separated by commas.", inert(whyTelemetry))
)
