package config

// Keys of the broker: who the broker is.
var (
	// NodeID is node.id.
	NodeID = broker[int32]("node.id", "1", "Number of this broker in the cluster; never changes for a data directory.", atLeast(0), kafkaHas("required"))
	_      = broker[int32]("broker.id", "-1", "Older name of node.id, used where node.id is not set.")
	_      = broker[[]string]("process.roles", "broker,controller", "Kafka's split into brokers and controllers.", listOf("broker", "controller"), kafkaHas("required"), inert(whyRoles))
	// BrokerRack is broker.rack.
	BrokerRack = broker[string]("broker.rack", null, "Name of the rack or zone of this broker, told to clients.")
	// LogDir is log.dir.
	LogDir = broker[[]string]("log.dir", "milena-data", "Data directory, used where log.dirs is not set.", kafkaHas("/tmp/kafka-logs"))
	// LogDirs is log.dirs.
	LogDirs = broker[[]string]("log.dirs", null, "Data directories, separated by commas; partitions are spread over them.")
	// CordonedLogDirs is cordoned.log.dirs (KIP-1066).
	CordonedLogDirs = broker[[]string]("cordoned.log.dirs", "", "* keeps new partitions away from this broker, which is being emptied. Single directories cannot be cordoned.", perBroker, listOf("*"))
	_               = broker[string]("metadata.log.dir", null, "Where Kafka keeps its metadata log.", inert(whyMeta))
)

// Keys of the broker: listeners.
var (
	// Listeners is listeners.
	Listeners = broker[[]string]("listeners", "PLAINTEXT://127.0.0.1:9092", "Where the broker accepts connections: NAME://host:port, separated by commas. An empty host means every interface.", kafkaHas("PLAINTEXT://:9092"), perBroker, atStart)
	// AdvertisedListeners is advertised.listeners.
	AdvertisedListeners = broker[[]string]("advertised.listeners", null, "What clients are told to connect to, where that differs from listeners.")
	// ListenerSecurityProtocolMap is listener.security.protocol.map.
	ListenerSecurityProtocolMap = broker[string]("listener.security.protocol.map", "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", "Security protocol of each listener name.", perBroker, atStart)
	// InterBrokerListenerName is inter.broker.listener.name.
	InterBrokerListenerName = broker[string]("inter.broker.listener.name", null, "Listener that brokers use among themselves.")
	_                       = broker[string]("security.inter.broker.protocol", "PLAINTEXT", "Security protocol between brokers, where inter.broker.listener.name is not set.", oneOf("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"), refused(whyPlain))
	_                       = broker[[]string]("early.start.listeners", null, "Listeners that open before authorisation is ready.", inert(whyStart))
	// ControllerListenerNames is controller.listener.names.
	ControllerListenerNames = broker[[]string]("controller.listener.names", null, "Listeners of Kafka's controllers. Milena has none: listeners with these names are left out.")
)

// Keys of the broker: Kafka's controllers and their metadata log.
var (
	_ = broker[int64]("controller.performance.always.log.threshold.ms", "2000", "Controller events slower than this are logged.", atLeast(0), internal, inert(whyMeta))
	_ = broker[int64]("controller.performance.sample.period.ms", "60000", "How often the controller logs its performance.", atLeast(100), internal, inert(whyMeta))
	_ = broker[int32]("controller.quorum.append.linger.ms", "25", "How long the metadata leader waits to fill a batch.", atLeast(0), inert(whyMeta))
	_ = broker[bool]("controller.quorum.auto.join.enable", "false", "Lets controllers join the quorum by themselves.", inert(whyMeta))
	_ = broker[[]string]("controller.quorum.bootstrap.servers", "", "Addresses of Kafka's controllers.", inert(whyMeta))
	_ = broker[int32]("controller.quorum.election.backoff.max.ms", "1000", "Longest wait after a lost election.", atLeast(0), inert(whyMeta))
	_ = broker[int32]("controller.quorum.election.timeout.ms", "1000", "Wait for votes before another election starts.", atLeast(0), inert(whyMeta))
	_ = broker[int32]("controller.quorum.fetch.max.bytes", "1048576", "Most bytes in one fetch of the metadata log.", atLeast(1), inert(whyMeta))
	_ = broker[int32]("controller.quorum.fetch.snapshot.max.bytes", "1048576", "Most bytes in one fetch of a metadata snapshot.", atLeast(1), inert(whyMeta))
	_ = broker[int32]("controller.quorum.fetch.timeout.ms", "2000", "Silence of the metadata leader after which an election starts.", atLeast(0), inert(whyMeta))
	_ = broker[int32]("controller.quorum.request.timeout.ms", "2000", "Longest wait for an answer within the quorum.", atLeast(0), inert(whyMeta))
	_ = broker[int32]("controller.quorum.retry.backoff.ms", "20", "Wait before a request within the quorum is repeated.", atLeast(0), inert(whyMeta))
	_ = broker[[]string]("controller.quorum.voters", "", "Members of Kafka's quorum: id@host:port.", inert(whyMeta))
	_ = broker[int32]("controller.quota.window.num", "11", "Windows kept for the quota on topic changes.", atLeast(1), inert(whyQuota))
	_ = broker[int32]("controller.quota.window.size.seconds", "1", "Length of one window of the quota on topic changes.", atLeast(1), inert(whyQuota))
	_ = broker[int32]("controller.socket.timeout.ms", "30000", "Socket timeout between controller and broker.", inert(whyMeta))
	_ = broker[int64]("metadata.log.max.record.bytes.between.snapshots", "20971520", "Bytes of metadata log between two snapshots.", atLeast(1), inert(whyMeta))
	_ = broker[int64]("metadata.log.max.snapshot.interval.ms", "3600000", "Longest time between two metadata snapshots.", atLeast(0), inert(whyMeta))
	_ = broker[int32]("metadata.log.segment.bytes", "1073741824", "Largest segment of the metadata log.", atLeast(8388608), inert(whyMeta))
	_ = broker[int64]("metadata.log.segment.ms", "604800000", "Oldest segment of the metadata log.", inert(whyMeta))
	_ = broker[int32]("metadata.max.idle.interval.ms", "500", "How often an idle metadata leader writes a record.", atLeast(0), inert(whyMeta))
	_ = broker[int64]("metadata.max.retention.bytes", "104857600", "Size of metadata log and snapshots that is kept.", inert(whyMeta))
	_ = broker[int64]("metadata.max.retention.ms", "604800000", "Age of metadata log and snapshots that is kept.", inert(whyMeta))
	_ = broker[int64]("internal.metadata.delete.delay.millis", "60000", "Wait before files of the metadata log are unlinked.", internal, inert(whyMeta))
	_ = broker[int32]("internal.metadata.log.segment.bytes", null, "Segment size of the metadata log in tests.", internal, inert(whyMeta))
	_ = broker[int32]("internal.metadata.max.batch.size.in.bytes", "8388608", "Largest batch of the metadata log.", internal, inert(whyMeta))
	// BrokerHeartbeatIntervalMs is broker.heartbeat.interval.ms.
	BrokerHeartbeatIntervalMs = broker[int32]("broker.heartbeat.interval.ms", "100", "Time between two heartbeats of a broker.", atLeast(10), kafkaHas("2000"))
	// BrokerSessionTimeoutMs is broker.session.timeout.ms.
	BrokerSessionTimeoutMs = broker[int32]("broker.session.timeout.ms", "600", "Silence after which a broker counts as dead.", atLeast(100), kafkaHas("9000"))
	// InitialBrokerRegistrationTimeoutMs is initial.broker.registration.timeout.ms.
	InitialBrokerRegistrationTimeoutMs = broker[int32]("initial.broker.registration.timeout.ms", "60000", "How long a starting broker tries to register.")
	_                                  = broker[int64]("server.max.startup.time.ms", "9223372036854775807", "How long start-up may take.", atLeast(0), internal, inert(whyStart))
	_                                  = broker[bool]("unstable.api.versions.enable", "false", "Announce versions of requests that are still in development.", internal, refused(whyUnstable))
	_                                  = broker[bool]("unstable.feature.versions.enable", "false", "Announce features that are still in development.", internal, refused(whyUnstable))
)

// Keys of the broker: the network.
var (
	_ = broker[int32]("num.network.threads", "3", "Threads that read and write sockets.", atLeast(1), clusterWide, inert(whyThreads))
	_ = broker[int32]("num.io.threads", "8", "Threads that carry out requests.", atLeast(1), clusterWide, inert(whyThreads))
	_ = broker[int32]("background.threads", "10", "Threads for background work.", atLeast(1), clusterWide, inert(whyThreads))
	_ = broker[int32]("queued.max.requests", "500", "Requests that may wait before reading from sockets stops.", atLeast(1), inert(whyQueue))
	// QueuedMaxRequestBytes is queued.max.request.bytes.
	QueuedMaxRequestBytes = broker[int64]("queued.max.request.bytes", "-1", "Bytes of requests that may be in memory at once before reading from sockets stops; -1 leaves the choice to the broker.")
	_                     = broker[int32]("socket.send.buffer.bytes", "102400", "Send buffer of a socket; -1 leaves it to the system.", inert(whySockbuf))
	_                     = broker[int32]("socket.receive.buffer.bytes", "102400", "Receive buffer of a socket; -1 leaves it to the system.", inert(whySockbuf))
	// SocketRequestMaxBytes is socket.request.max.bytes.
	SocketRequestMaxBytes = broker[int32]("socket.request.max.bytes", "104857600", "Largest request; a larger one closes its connection.", atLeast(1))
	_                     = broker[int32]("socket.listen.backlog.size", "50", "Connections that may wait to be accepted.", atLeast(1), inert(whyBacklog))
	// SocketConnectionSetupTimeoutMs is socket.connection.setup.timeout.ms.
	SocketConnectionSetupTimeoutMs = broker[int64]("socket.connection.setup.timeout.ms", "10000", "First limit for building a connection to another broker.")
	_                              = broker[int64]("socket.connection.setup.timeout.max.ms", "30000", "Highest limit for building a connection to another broker.", inert(whyOne))
	// MaxConnections is max.connections.
	MaxConnections = broker[int32]("max.connections", "2147483647", "Connections that may be open at once.", atLeast(0), clusterWide, atStart)
	// MaxConnectionsPerIP is max.connections.per.ip.
	MaxConnectionsPerIP = broker[int32]("max.connections.per.ip", "2147483647", "Connections that may be open at once from one address.", atLeast(0), clusterWide, atStart)
	_                   = broker[string]("max.connections.per.ip.overrides", "", "Other limits for some addresses: host:number, separated by commas.", clusterWide, atStart, refused(whyOverrides))
	// MaxConnectionCreationRate is max.connection.creation.rate.
	MaxConnectionCreationRate = broker[int32]("max.connection.creation.rate", "2147483647", "New connections per second, of all listeners each; more wait in the backlog.", atLeast(0), clusterWide, atStart)
	// ConnectionsMaxIdleMs is connections.max.idle.ms.
	ConnectionsMaxIdleMs = broker[int64]("connections.max.idle.ms", "600000", "Idle time after which a connection is closed.")
	_                    = broker[int32]("connection.failed.authentication.delay.ms", "100", "Wait before a connection is closed whose login failed.", atLeast(0), inert(whySec))
	_                    = broker[int64]("connections.max.reauth.ms", "0", "Longest time without a new login.", inert(whySec))
	// RequestTimeoutMs is request.timeout.ms.
	RequestTimeoutMs = broker[int32]("request.timeout.ms", "30000", "Longest wait for an answer of another broker.")
	// MaxRequestPartitionSizeLimit is max.request.partition.size.limit.
	MaxRequestPartitionSizeLimit = broker[int32]("max.request.partition.size.limit", "2000", "Partitions in one answer that lists topic partitions.", atLeast(1))
)

// Keys of the broker: topics.
var (
	// AutoCreateTopicsEnable is auto.create.topics.enable.
	AutoCreateTopicsEnable = broker[bool]("auto.create.topics.enable", "true", "Create a topic when a client first asks for it.")
	// DeleteTopicEnable is delete.topic.enable.
	DeleteTopicEnable = broker[bool]("delete.topic.enable", "true", "Whether topics can be deleted.")
	// NumPartitions is num.partitions.
	NumPartitions = broker[int32]("num.partitions", "1", "Partitions of a topic that is created without a number.", atLeast(1))
	// DefaultReplicationFactor is default.replication.factor.
	DefaultReplicationFactor = broker[int32]("default.replication.factor", "1", "Replicas of a topic that is created without a number.")
	_                        = broker[string]("create.topic.policy.class.name", null, "Java class that may forbid the creation of a topic.", class, refused(whyClass))
	_                        = broker[string]("alter.config.policy.class.name", null, "Java class that may forbid a change of configuration.", class, refused(whyClass))
)

// Keys of the broker: requests.
var (
	// FetchMaxBytes is fetch.max.bytes.
	FetchMaxBytes = broker[int32]("fetch.max.bytes", "57671680", "Most bytes in an answer to a Fetch.", atLeast(1024))
	// MaxIncrementalFetchSessionCacheSlots is max.incremental.fetch.session.cache.slots.
	MaxIncrementalFetchSessionCacheSlots = broker[int32]("max.incremental.fetch.session.cache.slots", "1000", "Incremental fetch sessions that are remembered at once.", atLeast(0))
	_                                    = broker[int32]("fetch.purgatory.purge.interval.requests", "1000", "How often Kafka sweeps finished waits of Fetch.", inert(whyPurgatory))
	_                                    = broker[int32]("producer.purgatory.purge.interval.requests", "1000", "How often Kafka sweeps finished waits of Produce.", inert(whyPurgatory))
	_                                    = broker[int32]("delete.records.purgatory.purge.interval.requests", "1", "How often Kafka sweeps finished waits of DeleteRecords.", inert(whyPurgatory))
	_                                    = broker[int32]("share.fetch.purgatory.purge.interval.requests", "1000", "How often Kafka sweeps finished waits of ShareFetch.", inert(whyPurgatory))
	// ProducerIDExpirationMs is producer.id.expiration.ms.
	ProducerIDExpirationMs = broker[int32]("producer.id.expiration.ms", "86400000", "Idle time after which a partition forgets an idempotent producer.", atLeast(1), clusterWide)
	_                      = broker[int32]("producer.id.expiration.check.interval.ms", "600000", "How often forgotten producers are looked for.", atLeast(1), internal, inert(whyCheck))
)

// Keys of the broker: quotas.
var (
	_ = broker[int32]("quota.window.num", "11", "Windows kept for client quotas.", atLeast(1), inert(whyQuota))
	_ = broker[int32]("quota.window.size.seconds", "1", "Length of one window of client quotas.", atLeast(1), inert(whyQuota))
	_ = broker[int32]("replication.quota.window.num", "11", "Windows kept for replication quotas.", atLeast(1), inert(whyQuota))
	_ = broker[int32]("replication.quota.window.size.seconds", "1", "Length of one window of replication quotas.", atLeast(1), inert(whyQuota))
	_ = broker[int32]("alter.log.dirs.replication.quota.window.num", "11", "Windows kept for moves between data directories.", atLeast(1), inert(whyQuota))
	_ = broker[int32]("alter.log.dirs.replication.quota.window.size.seconds", "1", "Length of one window for moves between data directories.", atLeast(1), inert(whyQuota))
	_ = broker[string]("client.quota.callback.class", null, "Java class that decides quotas.", class, refused(whyClass))
)

// Keys of the broker: metrics.
var (
	_ = broker[int32]("kafka.metrics.polling.interval.secs", "10", "How often Kafka's reporters look at metrics.", atLeast(1), inert(whyJmx))
	_ = broker[[]string]("kafka.metrics.reporters", "", "Java classes that report metrics.", refused(whyClass))
	_ = broker[[]string]("metric.reporters", "org.apache.kafka.common.metrics.JmxReporter", "Java classes that report metrics.", clusterWide, refused(whyClass))
	_ = broker[int32]("metrics.num.samples", "2", "Samples kept for a metric.", atLeast(1), inert(whyJmx))
	_ = broker[string]("metrics.recording.level", "INFO", "Highest level of metrics that are recorded.", inert(whyJmx))
	_ = broker[int64]("metrics.sample.window.ms", "30000", "Length of a sample.", atLeast(1), inert(whyJmx))
	_ = broker[int32]("telemetry.max.bytes", "1048576", "Largest batch of client metrics that is accepted.", atLeast(1), inert(whyTelemetry))
	_ = broker[[]string]("config.providers", "", "Java classes that fetch values from elsewhere.", clusterWide, refused(whyClass))
)
