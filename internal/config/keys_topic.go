package config

// Keys of topics (kafka.md 2.1).
var (
	// CleanupPolicy is cleanup.policy.
	CleanupPolicy = topic[[]string]("cleanup.policy", "delete", "What happens to old data: delete, compact (keep the newest record of each key), both; empty keeps everything.", twin("log.cleanup.policy"), listOf("compact", "delete"))
	// CompressionType is compression.type.
	CompressionType = topic[string]("compression.type", "producer", "Codec in which batches are stored; producer keeps the producer's.", twin("compression.type"), oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"))
	// CompressionGzipLevel is compression.gzip.level.
	CompressionGzipLevel = topic[int32]("compression.gzip.level", "-1", "gzip level where the broker compresses.", twin("compression.gzip.level"), check(gzipLevel{}))
	// CompressionLz4Level is compression.lz4.level.
	CompressionLz4Level = topic[int32]("compression.lz4.level", "9", "lz4 level where the broker compresses.", twin("compression.lz4.level"), within(1, 17))
	// CompressionZstdLevel is compression.zstd.level.
	CompressionZstdLevel = topic[int32]("compression.zstd.level", "3", "zstd level where the broker compresses.", twin("compression.zstd.level"), within(-131072, 22))
	// DeleteRetentionMs is delete.retention.ms.
	DeleteRetentionMs = topic[int64]("delete.retention.ms", "86400000", "How long deletion markers survive compaction.", twin("log.cleaner.delete.retention.ms"), atLeast(0))
	// FileDeleteDelayMs is file.delete.delay.ms.
	FileDeleteDelayMs = topic[int64]("file.delete.delay.ms", "60000", "Wait before removed files are unlinked.", twin("log.segment.delete.delay.ms"), atLeast(0))
	// FlushMessages is flush.messages.
	FlushMessages = topic[int64]("flush.messages", "1", "Records after which the log is synced to disk. 1 means that every acknowledged record is on disk; 9223372036854775807 leaves it to the system, as Kafka does.", twin("log.flush.interval.messages"), atLeast(1), kafkaHas("9223372036854775807"))
	// FlushMs is flush.ms.
	FlushMs = topic[int64]("flush.ms", "9223372036854775807", "Time after which the log is synced to disk.", twin("log.flush.interval.ms"), twin("log.flush.scheduler.interval.ms"), atLeast(0))
	// FollowerReplicationThrottledReplicas is follower.replication.throttled.replicas.
	FollowerReplicationThrottledReplicas = topic[[]string]("follower.replication.throttled.replicas", "", "Replicas whose followers are throttled: partition:broker, separated by commas, or *.", check(throttled{}))
	// LeaderReplicationThrottledReplicas is leader.replication.throttled.replicas.
	LeaderReplicationThrottledReplicas = topic[[]string]("leader.replication.throttled.replicas", "", "Replicas whose leaders are throttled: partition:broker, separated by commas, or *.", check(throttled{}))
	// IndexIntervalBytes is index.interval.bytes.
	IndexIntervalBytes  = topic[int32]("index.interval.bytes", "4096", "Bytes of log between two entries of the offset index.", twin("log.index.interval.bytes"), atLeast(0))
	localRetentionBytes = topic[int64]("local.retention.bytes", "-2", "Size kept on local disks when the topic is tiered; -2 means retention.bytes.", twin("log.local.retention.bytes"), atLeast(-2), inert(whyTier))
	localRetentionMs    = topic[int64]("local.retention.ms", "-2", "Age kept on local disks when the topic is tiered; -2 means retention.ms.", twin("log.local.retention.ms"), atLeast(-2), inert(whyTier))
	// MaxCompactionLagMs is max.compaction.lag.ms.
	MaxCompactionLagMs = topic[int64]("max.compaction.lag.ms", "9223372036854775807", "Age of a record at which compaction is forced.", twin("log.cleaner.max.compaction.lag.ms"), atLeast(1))
	// MaxMessageBytes is max.message.bytes.
	MaxMessageBytes = topic[int32]("max.message.bytes", "1048588", "Largest record batch, after compression.", twin("message.max.bytes"), atLeast(0))
	// MessageTimestampAfterMaxMs is message.timestamp.after.max.ms.
	MessageTimestampAfterMaxMs = topic[int64]("message.timestamp.after.max.ms", "3600000", "How far in the future a record's time may be.", twin("log.message.timestamp.after.max.ms"), atLeast(0))
	// MessageTimestampBeforeMaxMs is message.timestamp.before.max.ms.
	MessageTimestampBeforeMaxMs = topic[int64]("message.timestamp.before.max.ms", "9223372036854775807", "How far in the past a record's time may be.", twin("log.message.timestamp.before.max.ms"), atLeast(0))
	// MessageTimestampType is message.timestamp.type.
	MessageTimestampType = topic[string]("message.timestamp.type", "CreateTime", "Whose clock stamps records: the producer's (CreateTime) or the broker's (LogAppendTime).", twin("log.message.timestamp.type"), oneOf("CreateTime", "LogAppendTime"))
	// MinCleanableDirtyRatio is min.cleanable.dirty.ratio.
	MinCleanableDirtyRatio = topic[float64]("min.cleanable.dirty.ratio", "0.5", "Dirty share of the log that starts compaction.", twin("log.cleaner.min.cleanable.ratio"), within(0, 1))
	// MinCompactionLagMs is min.compaction.lag.ms.
	MinCompactionLagMs = topic[int64]("min.compaction.lag.ms", "0", "Age below which records stay uncompacted.", twin("log.cleaner.min.compaction.lag.ms"), atLeast(0))
	// MinInsyncReplicas is min.insync.replicas.
	MinInsyncReplicas = topic[int32]("min.insync.replicas", "1", "Replicas that must have a record before acks=all is answered.", twin("min.insync.replicas"), atLeast(1))
	// Preallocate is preallocate.
	Preallocate = topic[bool]("preallocate", "false", "Reserve the whole segment file on the disk when it is created.", twin("log.preallocate"))
	_           = topic[bool]("remote.log.copy.disable", "false", "Stop uploading to remote storage.", refused(whyTier))
	_           = topic[bool]("remote.log.delete.on.disable", "false", "Delete remote data when tiering is turned off.", inert(whyTier))
	_           = topic[bool]("remote.storage.enable", "false", "Move old segments to remote storage.", refused(whyTier))
	// RetentionBytes is retention.bytes.
	RetentionBytes = topic[int64]("retention.bytes", "-1", "Size of a partition above which old segments are deleted; -1 is without limit.", twin("log.retention.bytes"))
	// RetentionMs is retention.ms.
	RetentionMs = topic[int64]("retention.ms", "604800000", "Age after which segments are deleted; -1 is without limit.", twin("log.retention.ms"), scaled("log.retention.minutes", 60000), scaled("log.retention.hours", 3600000), atLeast(-1))
	// SegmentBytes is segment.bytes.
	SegmentBytes = topic[int32]("segment.bytes", "1073741824", "Largest segment file.", twin("log.segment.bytes"), atLeast(1048576))
	// SegmentIndexBytes is segment.index.bytes.
	SegmentIndexBytes = topic[int32]("segment.index.bytes", "10485760", "Largest index of a segment.", twin("log.index.size.max.bytes"), atLeast(4))
	// SegmentJitterMs is segment.jitter.ms.
	SegmentJitterMs = topic[int64]("segment.jitter.ms", "0", "Random time taken off segment.ms, so that logs do not all roll at once.", twin("log.roll.jitter.ms"), scaled("log.roll.jitter.hours", 3600000), atLeast(0))
	// SegmentMs is segment.ms.
	SegmentMs = topic[int64]("segment.ms", "604800000", "Age after which a new segment is begun.", twin("log.roll.ms"), scaled("log.roll.hours", 3600000), atLeast(1))
	// UncleanLeaderElectionEnable is unclean.leader.election.enable.
	UncleanLeaderElectionEnable = topic[bool]("unclean.leader.election.enable", "false", "A replica that is behind may become leader as the last resort.", twin("unclean.leader.election.enable"))
	// InternalSegmentBytes is internal.segment.bytes.
	InternalSegmentBytes = topic[int32]("internal.segment.bytes", null, "Segment size below the minimum of segment.bytes, for tests.", internal)
)
