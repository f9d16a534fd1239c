package api

import (
	"reflect"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// refusal is the API's own answer that says code for everything that was asked, and nothing else; nil when
// the answer has no place for an error. Where an answer has an error of the whole request, that is the
// place; else every item gets one.
func refusal(req kmsg.Request, code int16) kmsg.Response {
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if refuseItems(req, resp, code) {
		return resp
	}
	f := reflect.ValueOf(resp).Elem().FieldByName("ErrorCode")
	if !f.IsValid() || f.Kind() != reflect.Int16 {
		return nil
	}
	f.SetInt(int64(code))
	return resp
}

// refuseItems fills in the answers that have their errors with the items; false: resp is none of them.
func refuseItems(req kmsg.Request, resp kmsg.Response, code int16) bool {
	switch req := req.(type) {
	case *kmsg.ProduceRequest:
		refuseProduce(req, resp.(*kmsg.ProduceResponse), code)
	case *kmsg.FetchRequest:
		if req.Version >= 7 {
			return false
		}
		refuseFetch(req, resp.(*kmsg.FetchResponse), code)
	case *kmsg.CreateTopicsRequest:
		out := resp.(*kmsg.CreateTopicsResponse)
		for i := range req.Topics {
			t := kmsg.NewCreateTopicsResponseTopic()
			t.Topic, t.ErrorCode, t.NumPartitions, t.ReplicationFactor = req.Topics[i].Topic, code, -1, -1
			out.Topics = append(out.Topics, t)
		}
	case *kmsg.DeleteTopicsRequest:
		refuseDeleteTopics(req, resp.(*kmsg.DeleteTopicsResponse), code)
	case *kmsg.CreatePartitionsRequest:
		out := resp.(*kmsg.CreatePartitionsResponse)
		for i := range req.Topics {
			t := kmsg.NewCreatePartitionsResponseTopic()
			t.Topic, t.ErrorCode = req.Topics[i].Topic, code
			out.Topics = append(out.Topics, t)
		}
	case *kmsg.AlterConfigsRequest:
		out := resp.(*kmsg.AlterConfigsResponse)
		for i := range req.Resources {
			r := kmsg.NewAlterConfigsResponseResource()
			r.ResourceType, r.ResourceName, r.ErrorCode = req.Resources[i].ResourceType, req.Resources[i].ResourceName, code
			out.Resources = append(out.Resources, r)
		}
	case *kmsg.IncrementalAlterConfigsRequest:
		out := resp.(*kmsg.IncrementalAlterConfigsResponse)
		for i := range req.Resources {
			r := kmsg.NewIncrementalAlterConfigsResponseResource()
			r.ResourceType, r.ResourceName, r.ErrorCode = req.Resources[i].ResourceType, req.Resources[i].ResourceName, code
			out.Resources = append(out.Resources, r)
		}
	case *kmsg.ElectLeadersRequest:
		if req.Version >= 1 {
			return false
		}
		refuseElections(req, resp.(*kmsg.ElectLeadersResponse), code)
	case *kmsg.AlterReplicaLogDirsRequest:
		refuseLogDirs(req, resp.(*kmsg.AlterReplicaLogDirsResponse), code)
	default:
		return false
	}
	return true
}

func refuseProduce(req *kmsg.ProduceRequest, out *kmsg.ProduceResponse, code int16) {
	for i := range req.Topics {
		t := kmsg.NewProduceResponseTopic()
		t.Topic, t.TopicID = req.Topics[i].Topic, req.Topics[i].TopicID
		for j := range req.Topics[i].Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.BaseOffset, rp.LogStartOffset = req.Topics[i].Partitions[j].Partition, code, -1, -1
			t.Partitions = append(t.Partitions, rp)
		}
		out.Topics = append(out.Topics, t)
	}
}

// refuseFetch is for versions without an error of the whole answer.
func refuseFetch(req *kmsg.FetchRequest, out *kmsg.FetchResponse, code int16) {
	for i := range req.Topics {
		t := kmsg.NewFetchResponseTopic()
		t.Topic = req.Topics[i].Topic
		for j := range req.Topics[i].Partitions {
			p := kmsg.NewFetchResponseTopicPartition()
			p.Partition, p.ErrorCode, p.HighWatermark = req.Topics[i].Partitions[j].Partition, code, -1
			t.Partitions = append(t.Partitions, p)
		}
		out.Topics = append(out.Topics, t)
	}
}

func refuseDeleteTopics(req *kmsg.DeleteTopicsRequest, out *kmsg.DeleteTopicsResponse, code int16) {
	for i := range req.TopicNames {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.Topic, t.ErrorCode = &req.TopicNames[i], code
		out.Topics = append(out.Topics, t)
	}
	for i := range req.Topics {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.Topic, t.TopicID, t.ErrorCode = req.Topics[i].Topic, req.Topics[i].TopicID, code
		out.Topics = append(out.Topics, t)
	}
}

func refuseElections(req *kmsg.ElectLeadersRequest, out *kmsg.ElectLeadersResponse, code int16) {
	for i := range req.Topics {
		t := kmsg.NewElectLeadersResponseTopic()
		t.Topic = req.Topics[i].Topic
		for _, n := range req.Topics[i].Partitions {
			p := kmsg.NewElectLeadersResponseTopicPartition()
			p.Partition, p.ErrorCode = n, code
			t.Partitions = append(t.Partitions, p)
		}
		out.Topics = append(out.Topics, t)
	}
}

func refuseLogDirs(req *kmsg.AlterReplicaLogDirsRequest, out *kmsg.AlterReplicaLogDirsResponse, code int16) {
	at := map[string]int{} // a topic may be named for several directories; its answer is one
	for i := range req.Dirs {
		for j := range req.Dirs[i].Topics {
			rt := &req.Dirs[i].Topics[j]
			k, ok := at[rt.Topic]
			if !ok {
				k = len(out.Topics)
				at[rt.Topic] = k
				t := kmsg.NewAlterReplicaLogDirsResponseTopic()
				t.Topic = rt.Topic
				out.Topics = append(out.Topics, t)
			}
			for _, n := range rt.Partitions {
				p := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
				p.Partition, p.ErrorCode = n, code
				out.Topics[k].Partitions = append(out.Topics[k].Partitions, p)
			}
		}
	}
}
