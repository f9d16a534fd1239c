package config

// Keys of groups (kafka.md 2.3).
var (
	_ = groupKey[int32]("consumer.assignment.interval.ms", "1000", "Shortest time between two assignments.", twin("group.consumer.assignment.interval.ms"), atLeast(0), inert(whyProtocols))
	_ = groupKey[int32]("consumer.heartbeat.interval.ms", "5000", "Heartbeat interval told to members.", twin("group.consumer.heartbeat.interval.ms"), atLeast(1), inert(whyProtocols))
	_ = groupKey[int32]("consumer.session.timeout.ms", "45000", "Silence after which a member is removed.", twin("group.consumer.session.timeout.ms"), atLeast(1), inert(whyProtocols))
	_ = groupKey[int32]("share.assignment.interval.ms", "1000", "Shortest time between two assignments.", twin("group.share.assignment.interval.ms"), atLeast(0), inert(whyShare))
	_ = groupKey[string]("share.auto.offset.reset", "latest", "Where a share group starts: earliest, latest or by_duration:PnDTnHnMn.nS.", check(offsetReset{}), inert(whyShare))
	_ = groupKey[int32]("share.delivery.count.limit", "5", "Times a record is delivered before it is given up.", twin("group.share.delivery.count.limit"), atLeast(2), inert(whyShare))
	_ = groupKey[int32]("share.heartbeat.interval.ms", "5000", "Heartbeat interval told to members.", twin("group.share.heartbeat.interval.ms"), atLeast(1), inert(whyShare))
	_ = groupKey[string]("share.isolation.level", "read_uncommitted", "Whether records of aborted transactions are delivered.", oneOf("read_committed", "read_uncommitted"), inert(whyShare))
	_ = groupKey[int32]("share.partition.max.record.locks", "2000", "Records of a partition that may be out for delivery at once.", twin("group.share.partition.max.record.locks"), atLeast(100), inert(whyShare))
	_ = groupKey[int32]("share.record.lock.duration.ms", "30000", "How long a delivered record stays locked.", twin("group.share.record.lock.duration.ms"), atLeast(1000), inert(whyShare))
	_ = groupKey[bool]("share.renew.acknowledge.enable", "true", "Whether a consumer may renew its lock on a record.", inert(whyShare))
	_ = groupKey[int32]("share.session.timeout.ms", "45000", "Silence after which a member is removed.", twin("group.share.session.timeout.ms"), atLeast(1), inert(whyShare))
	_ = groupKey[int32]("streams.assignment.interval.ms", "1000", "Shortest time between two assignments.", twin("group.streams.assignment.interval.ms"), atLeast(0), inert(whyStreams))
	_ = groupKey[int32]("streams.heartbeat.interval.ms", "5000", "Heartbeat interval told to members.", twin("group.streams.heartbeat.interval.ms"), atLeast(1), inert(whyStreams))
	_ = groupKey[int32]("streams.initial.rebalance.delay.ms", "3000", "Wait for more members before a new group is first balanced.", twin("group.streams.initial.rebalance.delay.ms"), atLeast(0), inert(whyStreams))
	_ = groupKey[int32]("streams.num.standby.replicas", "0", "Standby copies of each task.", twin("group.streams.num.standby.replicas"), atLeast(0), inert(whyStreams))
	_ = groupKey[int32]("streams.session.timeout.ms", "45000", "Silence after which a member is removed.", twin("group.streams.session.timeout.ms"), atLeast(1), inert(whyStreams))
)
