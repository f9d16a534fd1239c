package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// AlterReplicaLogDirs (key 34), versions 1-2 (KIP-113). The answer says only that the copying has begun: DescribeLogDirs shows it as a
// future replica, with its lag, until it has taken the replica's place. It goes on after a restart. Errors for each partition:
// LOG_DIR_NOT_FOUND, KAFKA_STORAGE_ERROR (a directory that is offline, or no room), REPLICA_NOT_AVAILABLE (no such replica here; Kafka
// would also remember the directory for the day one is made).
func serveAlterReplicaLogDirs(c *Call) server.Reply {
	req := c.Request.(*kmsg.AlterReplicaLogDirsRequest)
	resp := kmsg.NewPtrAlterReplicaLogDirsResponse()
	resp.Version = req.Version
	at := map[string]int{} // a topic may be named for several directories; its answer is one
	for i := range req.Dirs {
		d := &req.Dirs[i]
		for j := range d.Topics {
			rt := &d.Topics[j]
			k, ok := at[rt.Topic]
			if !ok {
				k = len(resp.Topics)
				at[rt.Topic] = k
				t := kmsg.NewAlterReplicaLogDirsResponseTopic()
				t.Topic = rt.Topic
				resp.Topics = append(resp.Topics, t)
			}
			for _, n := range rt.Partitions {
				p := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
				p.Partition, p.ErrorCode = n, c.errorCode(c.Partitions.Move(rt.Topic, n, d.Dir))
				resp.Topics[k].Partitions = append(resp.Topics[k].Partitions, p)
			}
		}
	}
	return c.ready(resp)
}
