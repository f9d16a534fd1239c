package api

import (
	"github.com/milena-mq/milena/internal/wire"
)

// Row is all the broker knows about one API besides its body.
type Row struct {
	Key      int16
	Min, Max int16     // versions that are served
	Announce int16     // lowest version ApiVersions names; below Min only for Produce. It is Min when not set (see announced)
	On       Listeners // who may ask
	Route    Route     // where the answer is made
	Needs    Op        // checked by the gate before serve; PerItem where the body filters itself
	Flow     Flow
	Charge   Charge // which quota pays
	Alias    bool   // byte fields stay slices of the frame (Produce only)
	serve    func(*Call) Reply
}

// Name is Kafka's name of the API.
func (r *Row) Name() string { return wire.Name(r.Key) }

// announced is the lowest version that ApiVersions names.
func (r *Row) announced() int16 {
	if r.Key == keyProduce {
		return r.Announce
	}
	return r.Min
}

const (
	keyProduce     int16 = 0
	keyApiVersions int16 = wire.KeyApiVersions
)

// Listeners is a set of kinds of listener.
type Listeners uint8

// Client is the listeners for clients, Peer those for other brokers.
const (
	Client Listeners = 1 << iota
	Peer
	Both = Client | Peer
)

// Route says which broker answers.
type Route uint8

const (
	Here       Route = iota // this one, whoever is asked
	Group                   // the coordinator of the group
	Txn                     // the coordinator of the transactional id
	Controller              // the controller; forwarded when this broker is not it
)

// Op is what the caller must be allowed before serve runs. Until access control exists (a later issue)
// the gate grants everything; the column is filled now so that turning it on changes no API.
type Op uint8

const (
	Nothing               Op = iota // open to everybody, also before login
	PerItem                         // the body checks each topic or group it names
	ClusterDescribe                 // Describe on Cluster
	ClusterAlter                    // Alter on Cluster
	ClusterAction                   // ClusterAction on Cluster: other brokers
	ClusterDescribeConfig           // DescribeConfigs on Cluster
)

// Flow says whether the next request of the connection may be looked at before this one is answered.
// Answers leave in order either way.
type Flow uint8

const (
	// Serial reads no further: the request has an effect that a later request of the same client must
	// see, or it is rare and not worth overlapping.
	Serial Flow = iota
	// Pipelined goes on: data path and coordinator requests, whose order is kept where it matters, in
	// the partition and in the shard's inbox.
	Pipelined
)

// Charge says which quota pays for a request, once quotas exist (KIP-13, KIP-124, KIP-599).
type Charge uint8

const (
	ChargeRequest  Charge = iota // request time
	ChargeProduce                // request time and bytes in
	ChargeFetch                  // request time and bytes out
	ChargeMutation               // request time and controller mutations
	ChargeNone                   // exempt
)

// table is every API that is served, by key. Owners add their rows here.
var table = []Row{
	{Key: 0, Min: 3, Max: 13, Announce: 0, On: Client, Needs: PerItem, Flow: Pipelined, Charge: ChargeProduce, Alias: true, serve: serveProduce},
	{Key: 1, Min: 4, Max: 18, On: Both, Needs: PerItem, Flow: Pipelined, Charge: ChargeFetch, serve: serveFetch},
	{Key: 2, Min: 1, Max: 11, On: Both, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveListOffsets},
	{Key: 3, Min: 0, Max: 13, On: Both, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveMetadata},
	{Key: 8, Min: 2, Max: 10, On: Client, Route: Group, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveOffsetCommit},
	{Key: 9, Min: 1, Max: 10, On: Client, Route: Group, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveOffsetFetch},
	{Key: 10, Min: 0, Max: 6, On: Client, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveFindCoordinator},
	{Key: 11, Min: 0, Max: 9, On: Client, Route: Group, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveJoinGroup},
	{Key: 12, Min: 0, Max: 4, On: Client, Route: Group, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveHeartbeat},
	{Key: 13, Min: 0, Max: 5, On: Client, Route: Group, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveLeaveGroup},
	{Key: 14, Min: 0, Max: 5, On: Client, Route: Group, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveSyncGroup},
	{Key: 15, Min: 0, Max: 6, On: Client, Route: Group, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveDescribeGroups},
	{Key: 16, Min: 0, Max: 5, On: Client, Route: Group, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveListGroups},
	{Key: 18, Min: 0, Max: 4, On: Both, Needs: Nothing, Flow: Pipelined, Charge: ChargeNone, serve: serveApiVersions},
	{Key: 19, Min: 2, Max: 7, On: Both, Route: Controller, Needs: PerItem, Flow: Serial, Charge: ChargeMutation, serve: serveCreateTopics},
	{Key: 20, Min: 1, Max: 6, On: Both, Route: Controller, Needs: PerItem, Flow: Serial, Charge: ChargeMutation, serve: serveDeleteTopics},
	{Key: 21, Min: 0, Max: 2, On: Client, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveDeleteRecords},
	{Key: 22, Min: 0, Max: 5, On: Client, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveInitProducerID},
	{Key: 23, Min: 2, Max: 4, On: Both, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveOffsetForLeaderEpoch},
	{Key: 24, Min: 0, Max: 5, On: Both, Route: Txn, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveAddPartitionsToTxn},
	{Key: 25, Min: 0, Max: 4, On: Client, Route: Txn, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveAddOffsetsToTxn},
	{Key: 26, Min: 0, Max: 5, On: Client, Route: Txn, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveEndTxn},
	{Key: 27, Min: 1, Max: 2, On: Both, Needs: ClusterAction, Flow: Pipelined, Charge: ChargeNone, serve: serveWriteTxnMarkers},
	{Key: 28, Min: 0, Max: 5, On: Client, Route: Group, Needs: PerItem, Flow: Pipelined, Charge: ChargeRequest, serve: serveTxnOffsetCommit},
	{Key: 32, Min: 1, Max: 4, On: Client, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveDescribeConfigs},
	{Key: 33, Min: 0, Max: 2, On: Both, Route: Controller, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveAlterConfigs},
	{Key: 34, Min: 1, Max: 2, On: Client, Needs: ClusterAlter, Flow: Serial, Charge: ChargeRequest, serve: serveAlterReplicaLogDirs},
	{Key: 35, Min: 1, Max: 5, On: Client, Needs: ClusterDescribe, Flow: Serial, Charge: ChargeRequest, serve: serveDescribeLogDirs},
	{Key: 37, Min: 0, Max: 3, On: Both, Route: Controller, Needs: PerItem, Flow: Serial, Charge: ChargeMutation, serve: serveCreatePartitions},
	{Key: 42, Min: 0, Max: 2, On: Client, Route: Group, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveDeleteGroups},
	{Key: 43, Min: 0, Max: 2, On: Both, Route: Controller, Needs: ClusterAlter, Flow: Serial, Charge: ChargeRequest, serve: serveElectLeaders},
	{Key: 44, Min: 0, Max: 1, On: Both, Route: Controller, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveIncrementalAlterConfigs},
	{Key: 45, Min: 0, Max: 1, On: Both, Route: Controller, Needs: ClusterAlter, Flow: Serial, Charge: ChargeRequest, serve: serveAlterPartitionReassignments},
	{Key: 46, Min: 0, Max: 0, On: Both, Route: Controller, Needs: ClusterDescribe, Flow: Serial, Charge: ChargeRequest, serve: serveListPartitionReassignments},
	{Key: 47, Min: 0, Max: 0, On: Client, Route: Group, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveOffsetDelete},
	{Key: 55, Min: 0, Max: 2, On: Both, Route: Controller, Needs: ClusterDescribe, Flow: Serial, Charge: ChargeRequest, serve: serveDescribeQuorum},
	{Key: 56, Min: 2, Max: 3, On: Peer, Needs: ClusterAction, Flow: Pipelined, Charge: ChargeNone, serve: servePeer},
	{Key: 57, Min: 0, Max: 2, On: Both, Route: Controller, Needs: ClusterAlter, Flow: Serial, Charge: ChargeRequest, serve: serveUpdateFeatures},
	{Key: 60, Min: 0, Max: 2, On: Client, Needs: Nothing, Flow: Serial, Charge: ChargeRequest, serve: serveDescribeCluster},
	{Key: 61, Min: 0, Max: 0, On: Client, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveDescribeProducers},
	{Key: 62, Min: 0, Max: 4, On: Peer, Needs: ClusterAction, Flow: Pipelined, Charge: ChargeNone, serve: servePeer},
	{Key: 63, Min: 0, Max: 2, On: Peer, Needs: ClusterAction, Flow: Pipelined, Charge: ChargeNone, serve: servePeer},
	{Key: 64, Min: 0, Max: 0, On: Both, Route: Controller, Needs: ClusterAlter, Flow: Serial, Charge: ChargeRequest, serve: serveUnregisterBroker},
	{Key: 65, Min: 0, Max: 0, On: Client, Route: Txn, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveDescribeTransactions},
	{Key: 66, Min: 0, Max: 2, On: Client, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveListTransactions},
	{Key: 67, Min: 0, Max: 0, On: Peer, Needs: ClusterAction, Flow: Pipelined, Charge: ChargeNone, serve: servePeer},
	{Key: 73, Min: 0, Max: 0, On: Peer, Needs: ClusterAction, Flow: Pipelined, Charge: ChargeNone, serve: servePeer},
	{Key: 74, Min: 0, Max: 1, On: Client, Needs: ClusterDescribeConfig, Flow: Serial, Charge: ChargeRequest, serve: serveListConfigResources},
	{Key: 75, Min: 0, Max: 0, On: Client, Needs: PerItem, Flow: Serial, Charge: ChargeRequest, serve: serveDescribeTopicPartitions},
	{Key: 80, Min: 0, Max: 1, On: Both, Route: Controller, Needs: ClusterAlter, Flow: Serial, Charge: ChargeRequest, serve: serveAddRaftVoter},
	{Key: 81, Min: 0, Max: 0, On: Both, Route: Controller, Needs: ClusterAlter, Flow: Serial, Charge: ChargeRequest, serve: serveRemoveRaftVoter},
}

// absent is every other key of the protocol, and why it is not served. Never announced; a request for it
// closes the connection, as Apache Kafka does with a key it does not know.
var absent = map[int16]string{
	4:  "LeaderAndIsr: removed in Kafka 4.0",
	5:  "StopReplica: removed in Kafka 4.0",
	6:  "UpdateMetadata: removed in Kafka 4.0",
	7:  "ControlledShutdown: removed in Kafka 4.0",
	17: "SaslHandshake: comes with security",
	29: "DescribeAcls: comes with security",
	30: "CreateAcls: comes with security",
	31: "DeleteAcls: comes with security",
	36: "SaslAuthenticate: comes with security",
	38: "CreateDelegationToken: comes with security",
	39: "RenewDelegationToken: comes with security",
	40: "ExpireDelegationToken: comes with security",
	41: "DescribeDelegationToken: comes with security",
	48: "DescribeClientQuotas: comes with quotas",
	49: "AlterClientQuotas: comes with quotas",
	50: "DescribeUserScramCredentials: comes with security",
	51: "AlterUserScramCredentials: comes with security",
	52: "Vote: Kafka's own Raft quorum; ours is etcd",
	53: "BeginQuorumEpoch: Kafka's own Raft quorum; ours is etcd",
	54: "EndQuorumEpoch: Kafka's own Raft quorum; ours is etcd",
	58: "Envelope: comes with forwarding between brokers",
	59: "FetchSnapshot: Kafka's own Raft quorum; ours is etcd",
	68: "ConsumerGroupHeartbeat: comes with the new consumer groups (KIP-848)",
	69: "ConsumerGroupDescribe: comes with the new consumer groups (KIP-848)",
	70: "ControllerRegistration: Kafka's own controller nodes; ours is a broker",
	71: "GetTelemetrySubscriptions: comes with client metrics (KIP-714)",
	72: "PushTelemetry: comes with client metrics (KIP-714)",
	76: "ShareGroupHeartbeat: comes with share groups",
	77: "ShareGroupDescribe: comes with share groups",
	78: "ShareFetch: comes with share groups",
	79: "ShareAcknowledge: comes with share groups",
	82: "UpdateRaftVoter: Kafka's own Raft quorum; ours is etcd",
	83: "InitializeShareGroupState: comes with share groups",
	84: "ReadShareGroupState: comes with share groups",
	85: "WriteShareGroupState: comes with share groups",
	86: "DeleteShareGroupState: comes with share groups",
	87: "ReadShareGroupStateSummary: comes with share groups",
	88: "StreamsGroupHeartbeat: comes with streams groups (KIP-1071)",
	89: "StreamsGroupDescribe: comes with streams groups (KIP-1071)",
	90: "DescribeShareGroupOffsets: comes with share groups",
	91: "AlterShareGroupOffsets: comes with share groups",
	92: "DeleteShareGroupOffsets: comes with share groups",
	93: "StreamsGroupTopologyDescriptionUpdate: Kafka 4.4",
	94: "UnregisterController: Kafka 4.4",
}
