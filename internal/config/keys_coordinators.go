package config

// Keys of the broker: groups.
var (
	// GroupMinSessionTimeoutMs is group.min.session.timeout.ms.
	GroupMinSessionTimeoutMs = broker[int32]("group.min.session.timeout.ms", "6000", "Shortest session timeout a classic member may ask for.")
	// GroupMaxSessionTimeoutMs is group.max.session.timeout.ms.
	GroupMaxSessionTimeoutMs = broker[int32]("group.max.session.timeout.ms", "1800000", "Longest session timeout a classic member may ask for.")
	// GroupInitialRebalanceDelayMs is group.initial.rebalance.delay.ms.
	GroupInitialRebalanceDelayMs = broker[int32]("group.initial.rebalance.delay.ms", "3000", "Wait for more members before an empty group is first balanced.")
	// GroupMaxSize is group.max.size.
	GroupMaxSize = broker[int32]("group.max.size", "2147483647", "Members a classic group may have.", atLeast(1))
	_            = broker[int32]("group.coordinator.append.linger.ms", "-1", "How long the coordinator waits to fill a batch.", atLeast(-1), inert(whyBatchless))
	_            = broker[int32]("group.coordinator.cached.buffer.max.bytes", "1048588", "Buffers of the coordinator above this size are not kept.", atLeast(524288), clusterWide, inert(whyBatchless))
	_            = broker[int32]("group.coordinator.background.threads", "2", "Threads for expensive work of the coordinator.", atLeast(1), inert(whyThreads))
	_            = broker[int32]("group.coordinator.threads", "4", "Threads that carry out requests of groups.", atLeast(1), inert(whyThreads))
	_            = broker[[]string]("group.coordinator.rebalance.protocols", "classic,consumer,streams", "Group protocols that are served.", listOf("consumer", "classic", "share", "streams"), inert(whyProtocols))
	_            = broker[int32]("group.consumer.assignment.interval.ms", "1000", "Shortest time between two assignments of a consumer group.", atLeast(0), clusterWide, inert(whyProtocols))
	_            = broker[[]string]("group.consumer.assignors", "uniform,range", "Assignors of consumer groups; the first is the default.", inert(whyProtocols))
	_            = broker[int32]("group.consumer.heartbeat.interval.ms", "5000", "Heartbeat interval told to members of consumer groups.", atLeast(1), inert(whyProtocols))
	_            = broker[int32]("group.consumer.max.assignment.interval.ms", "15000", "Highest consumer.assignment.interval.ms.", atLeast(0), inert(whyProtocols))
	_            = broker[int32]("group.consumer.max.heartbeat.interval.ms", "15000", "Highest consumer.heartbeat.interval.ms.", atLeast(1), inert(whyProtocols))
	_            = broker[int32]("group.consumer.max.session.timeout.ms", "60000", "Highest consumer.session.timeout.ms.", atLeast(1), inert(whyProtocols))
	_            = broker[int32]("group.consumer.max.size", "2147483647", "Members a consumer group may have.", atLeast(1), inert(whyProtocols))
	_            = broker[string]("group.consumer.migration.policy", "bidirectional", "Which ways a group may change between the classic and the consumer protocol.", check(OneOfFold("DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL")), inert(whyProtocols))
	_            = broker[int32]("group.consumer.min.assignment.interval.ms", "0", "Lowest consumer.assignment.interval.ms.", atLeast(0), inert(whyProtocols))
	_            = broker[int32]("group.consumer.min.heartbeat.interval.ms", "5000", "Lowest consumer.heartbeat.interval.ms.", atLeast(1), inert(whyProtocols))
	_            = broker[int32]("group.consumer.min.session.timeout.ms", "45000", "Lowest consumer.session.timeout.ms.", atLeast(1), inert(whyProtocols))
	_            = broker[int32]("group.consumer.regex.refresh.interval.ms", "600000", "How often subscriptions by pattern are resolved again.", atLeast(10000), internal, inert(whyProtocols))
	_            = broker[int32]("group.consumer.session.timeout.ms", "45000", "Session timeout of consumer groups.", atLeast(1), inert(whyProtocols))
	// OffsetMetadataMaxBytes is offset.metadata.max.bytes.
	OffsetMetadataMaxBytes = broker[int32]("offset.metadata.max.bytes", "4096", "Largest text that may be stored with a committed offset.")
	// OffsetsCommitTimeoutMs is offsets.commit.timeout.ms.
	OffsetsCommitTimeoutMs = broker[int32]("offsets.commit.timeout.ms", "5000", "Longest wait for a commit to reach its replicas.", atLeast(1))
	_                      = broker[int32]("offsets.load.buffer.size", "5242880", "Batch size while offsets are loaded.", atLeast(1), inert(whyLoad))
	// OffsetsRetentionCheckIntervalMs is offsets.retention.check.interval.ms.
	OffsetsRetentionCheckIntervalMs = broker[int64]("offsets.retention.check.interval.ms", "600000", "How often committed offsets are looked over for expiry.", atLeast(1))
	// OffsetsRetentionMinutes is offsets.retention.minutes.
	OffsetsRetentionMinutes = broker[int32]("offsets.retention.minutes", "10080", "How long the offsets of an empty group are kept.", atLeast(1))
	_                       = broker[int32]("offsets.topic.compression.codec", "0", "Codec of committed offsets, by number.", inert(whyCodec))
	// OffsetsTopicNumPartitions is offsets.topic.num.partitions.
	OffsetsTopicNumPartitions = broker[int32]("offsets.topic.num.partitions", "50", "Partitions of __consumer_offsets.", atLeast(1))
	// OffsetsTopicReplicationFactor is offsets.topic.replication.factor.
	OffsetsTopicReplicationFactor = broker[int16]("offsets.topic.replication.factor", "3", "Replicas of __consumer_offsets; fewer while there are fewer brokers.", atLeast(1))
	// OffsetsTopicSegmentBytes is offsets.topic.segment.bytes.
	OffsetsTopicSegmentBytes = broker[int32]("offsets.topic.segment.bytes", "104857600", "Segment size of __consumer_offsets.", atLeast(1))
)

// Keys of the broker: share groups.
var (
	_ = broker[int32]("group.share.assignment.interval.ms", "1000", "Shortest time between two assignments of a share group.", atLeast(0), clusterWide, inert(whyShare))
	_ = broker[[]string]("group.share.assignors", "simple", "Assignors of share groups.", inert(whyShare))
	_ = broker[int32]("group.share.delivery.count.limit", "5", "Times a record is delivered before it is given up.", within(2, 10), inert(whyShare))
	_ = broker[int32]("group.share.heartbeat.interval.ms", "5000", "Heartbeat interval told to members of share groups.", atLeast(1), inert(whyShare))
	_ = broker[int32]("group.share.initialize.retry.interval.ms", "30000", "Wait before the start of a share partition is set up again.", atLeast(1), internal, inert(whyShare))
	_ = broker[int32]("group.share.max.assignment.interval.ms", "15000", "Highest share.assignment.interval.ms.", atLeast(0), inert(whyShare))
	_ = broker[int32]("group.share.max.delivery.count.limit", "10", "Highest share.delivery.count.limit.", within(5, 25), inert(whyShare))
	_ = broker[int32]("group.share.max.heartbeat.interval.ms", "15000", "Highest share.heartbeat.interval.ms.", atLeast(1), inert(whyShare))
	_ = broker[int32]("group.share.max.partition.max.record.locks", "4000", "Highest share.partition.max.record.locks.", within(2000, 10000), inert(whyShare))
	_ = broker[int32]("group.share.max.record.lock.duration.ms", "60000", "Highest share.record.lock.duration.ms.", within(30000, 3600000), inert(whyShare))
	_ = broker[int32]("group.share.max.session.timeout.ms", "60000", "Highest share.session.timeout.ms.", atLeast(1), inert(whyShare))
	_ = broker[int32]("group.share.max.share.sessions", "2000", "Share sessions that are remembered at once.", atLeast(1), inert(whyShare))
	_ = broker[int32]("group.share.max.size", "200", "Members a share group may have.", within(1, 1000), inert(whyShare))
	_ = broker[int32]("group.share.min.assignment.interval.ms", "0", "Lowest share.assignment.interval.ms.", atLeast(0), inert(whyShare))
	_ = broker[int32]("group.share.min.delivery.count.limit", "2", "Lowest share.delivery.count.limit.", within(2, 5), inert(whyShare))
	_ = broker[int32]("group.share.min.heartbeat.interval.ms", "5000", "Lowest share.heartbeat.interval.ms.", atLeast(1), inert(whyShare))
	_ = broker[int32]("group.share.min.partition.max.record.locks", "100", "Lowest share.partition.max.record.locks.", within(100, 2000), inert(whyShare))
	_ = broker[int32]("group.share.min.record.lock.duration.ms", "15000", "Lowest share.record.lock.duration.ms.", within(1000, 30000), inert(whyShare))
	_ = broker[int32]("group.share.min.session.timeout.ms", "45000", "Lowest share.session.timeout.ms.", atLeast(1), inert(whyShare))
	_ = broker[int32]("group.share.partition.max.record.locks", "2000", "Records of a partition that may be out for delivery at once.", within(100, 10000), inert(whyShare))
	_ = broker[string]("group.share.persister.class.name", "org.apache.kafka.server.share.persister.DefaultStatePersister", "Java class that stores the state of share groups.", internal, refused(whyClass))
	_ = broker[int32]("group.share.record.lock.duration.ms", "30000", "How long a delivered record stays locked.", within(1000, 3600000), inert(whyShare))
	_ = broker[int32]("group.share.session.timeout.ms", "45000", "Session timeout of share groups.", atLeast(1), inert(whyShare))
	_ = broker[int32]("share.coordinator.append.linger.ms", "-1", "How long the share coordinator waits to fill a batch.", atLeast(-1), inert(whyShare))
	_ = broker[int32]("share.coordinator.cached.buffer.max.bytes", "1048588", "Buffers of the share coordinator above this size are not kept.", atLeast(524288), clusterWide, inert(whyShare))
	_ = broker[int32]("share.coordinator.cold.partition.snapshot.interval.ms", "300000", "How often idle share partitions are written whole.", atLeast(1), internal, inert(whyShare))
	_ = broker[int32]("share.coordinator.load.buffer.size", "5242880", "Batch size while share state is loaded.", atLeast(1), inert(whyShare))
	_ = broker[int32]("share.coordinator.snapshot.update.records.per.snapshot", "500", "Updates between two whole records of share state.", within(0, 500), inert(whyShare))
	_ = broker[int32]("share.coordinator.state.topic.compression.codec", "0", "Codec of __share_group_state, by number.", inert(whyShare))
	_ = broker[int16]("share.coordinator.state.topic.min.isr", "2", "min.insync.replicas of __share_group_state.", atLeast(1), inert(whyShare))
	_ = broker[int32]("share.coordinator.state.topic.num.partitions", "50", "Partitions of __share_group_state.", atLeast(1), inert(whyShare))
	_ = broker[int32]("share.coordinator.state.topic.prune.interval.ms", "300000", "How often __share_group_state is trimmed.", atLeast(1), internal, inert(whyShare))
	_ = broker[int16]("share.coordinator.state.topic.replication.factor", "3", "Replicas of __share_group_state.", atLeast(1), inert(whyShare))
	_ = broker[int32]("share.coordinator.state.topic.segment.bytes", "104857600", "Segment size of __share_group_state.", atLeast(1), inert(whyShare))
	_ = broker[int32]("share.coordinator.threads", "1", "Threads of the share coordinator.", atLeast(1), inert(whyThreads))
	_ = broker[int32]("share.coordinator.write.timeout.ms", "5000", "Longest wait for share state to reach its replicas.", atLeast(1), inert(whyShare))
)

// Keys of the broker: streams groups.
var (
	_ = broker[int32]("group.streams.assignment.interval.ms", "1000", "Shortest time between two assignments of a streams group.", atLeast(0), clusterWide, inert(whyStreams))
	_ = broker[int32]("group.streams.heartbeat.interval.ms", "5000", "Heartbeat interval told to members of streams groups.", atLeast(1), inert(whyStreams))
	_ = broker[int32]("group.streams.initial.rebalance.delay.ms", "3000", "Wait for more members before a new streams group is first balanced.", atLeast(0), inert(whyStreams))
	_ = broker[int32]("group.streams.max.assignment.interval.ms", "15000", "Highest streams.assignment.interval.ms.", atLeast(0), inert(whyStreams))
	_ = broker[int32]("group.streams.max.heartbeat.interval.ms", "15000", "Highest streams.heartbeat.interval.ms.", atLeast(1), inert(whyStreams))
	_ = broker[int32]("group.streams.max.session.timeout.ms", "60000", "Highest streams.session.timeout.ms.", atLeast(1), inert(whyStreams))
	_ = broker[int32]("group.streams.max.size", "2147483647", "Members a streams group may have.", atLeast(1), inert(whyStreams))
	_ = broker[int32]("group.streams.max.standby.replicas", "2", "Highest streams.num.standby.replicas.", atLeast(0), inert(whyStreams))
	_ = broker[int32]("group.streams.min.assignment.interval.ms", "0", "Lowest streams.assignment.interval.ms.", atLeast(0), inert(whyStreams))
	_ = broker[int32]("group.streams.min.heartbeat.interval.ms", "5000", "Lowest streams.heartbeat.interval.ms.", atLeast(1), inert(whyStreams))
	_ = broker[int32]("group.streams.min.session.timeout.ms", "45000", "Lowest streams.session.timeout.ms.", atLeast(1), inert(whyStreams))
	_ = broker[int32]("group.streams.num.standby.replicas", "0", "Standby copies of each task.", atLeast(0), inert(whyStreams))
	_ = broker[int32]("group.streams.session.timeout.ms", "45000", "Session timeout of streams groups.", atLeast(1), inert(whyStreams))
)

// Keys of the broker: transactions.
var (
	// TransactionMaxTimeoutMs is transaction.max.timeout.ms.
	TransactionMaxTimeoutMs = broker[int32]("transaction.max.timeout.ms", "900000", "Longest timeout a transaction may ask for.", atLeast(1))
	_                       = broker[int32]("transaction.abort.timed.out.transaction.cleanup.interval.ms", "10000", "How often overdue transactions are aborted.", atLeast(1), inert(whyTxnTimer))
	_                       = broker[bool]("transaction.partition.verification.enable", "true", "Ask the coordinator before a partition joins a transaction.", clusterWide, inert(whyTxnVerify))
	_                       = broker[int32]("transaction.remove.expired.transaction.cleanup.interval.ms", "3600000", "How often expired transactional ids are removed.", atLeast(1), inert(whyTxnTimer))
	_                       = broker[int32]("transaction.state.log.load.buffer.size", "5242880", "Batch size while transactions are loaded.", atLeast(1), inert(whyTxnLoad))
	// TransactionStateLogMinISR is transaction.state.log.min.isr.
	TransactionStateLogMinISR = broker[int32]("transaction.state.log.min.isr", "2", "min.insync.replicas of __transaction_state.", atLeast(1))
	// TransactionStateLogNumPartitions is transaction.state.log.num.partitions.
	TransactionStateLogNumPartitions = broker[int32]("transaction.state.log.num.partitions", "50", "Partitions of __transaction_state.", atLeast(1))
	// TransactionStateLogReplicationFactor is transaction.state.log.replication.factor.
	TransactionStateLogReplicationFactor = broker[int16]("transaction.state.log.replication.factor", "3", "Replicas of __transaction_state.", atLeast(1))
	// TransactionStateLogSegmentBytes is transaction.state.log.segment.bytes.
	TransactionStateLogSegmentBytes = broker[int32]("transaction.state.log.segment.bytes", "104857600", "Segment size of __transaction_state.", atLeast(1))
	_                               = broker[bool]("transaction.two.phase.commit.enable", "false", "Allow transactions that an outside coordinator decides (KIP-939).", refused(whyTwoPhase))
	// TransactionalIDExpirationMs is transactional.id.expiration.ms.
	TransactionalIDExpirationMs = broker[int32]("transactional.id.expiration.ms", "604800000", "Idle time after which a transactional id is forgotten.", atLeast(1))
	_                           = broker[int32]("add.partitions.to.txn.retry.backoff.max.ms", "100", "Longest time a broker tries to add a partition to a transaction.", atLeast(0), inert(whyTxnPark))
	_                           = broker[int32]("add.partitions.to.txn.retry.backoff.ms", "20", "Wait between two such tries.", atLeast(1), inert(whyTxnPark))
)
