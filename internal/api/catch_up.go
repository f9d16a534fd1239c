package api

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
)

// catchUpWait bounds the wait for this broker's own image after the controller has answered. The image
// comes from the same history and is a few milliseconds behind at most, unless this broker is in trouble.
const catchUpWait = 300 * time.Millisecond

// catchUp waits a moment until this broker's own image shows what the controller has done, so that a client
// that creates a topic and then asks the same broker finds it. Too late is no error: the change has happened.
func (c *Call) catchUp(ctx context.Context, resp kmsg.Response) {
	shows := changed(c.Request, resp)
	if shows == nil || c.Controller == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	c.Image = c.Controller.AwaitImage(ctx, shows)
}

// changed is what an image shows once a change that was answered with resp has reached it; nil for a
// request that changes nothing that could be looked for.
func changed(req kmsg.Request, resp kmsg.Response) func(*meta.Image) bool {
	switch req := req.(type) {
	case *kmsg.CreateTopicsRequest:
		if out, ok := resp.(*kmsg.CreateTopicsResponse); ok && !req.ValidateOnly {
			return createdShows(out)
		}
	case *kmsg.DeleteTopicsRequest:
		if out, ok := resp.(*kmsg.DeleteTopicsResponse); ok {
			return deletedShows(out)
		}
	case *kmsg.CreatePartitionsRequest:
		if out, ok := resp.(*kmsg.CreatePartitionsResponse); ok && !req.ValidateOnly {
			return grownShows(req, out)
		}
	case *kmsg.AlterConfigsRequest:
		if out, ok := resp.(*kmsg.AlterConfigsResponse); ok && !req.ValidateOnly {
			return replacedShows(req, out)
		}
	case *kmsg.IncrementalAlterConfigsRequest:
		if out, ok := resp.(*kmsg.IncrementalAlterConfigsResponse); ok && !req.ValidateOnly {
			return alteredShows(req, out)
		}
	case *kmsg.UpdateFeaturesRequest:
		if out, ok := resp.(*kmsg.UpdateFeaturesResponse); ok && out.ErrorCode == 0 && !req.ValidateOnly {
			return featuresShow(req, out)
		}
	case *kmsg.UnregisterBrokerRequest:
		if out, ok := resp.(*kmsg.UnregisterBrokerResponse); ok && out.ErrorCode == 0 {
			return func(im *meta.Image) bool { return im.Broker(req.BrokerID) == nil }
		}
	}
	return nil
}

func featuresShow(req *kmsg.UpdateFeaturesRequest, out *kmsg.UpdateFeaturesResponse) func(*meta.Image) bool {
	for i := range out.Results {
		if out.Results[i].ErrorCode != 0 {
			return nil // all or none: nothing has changed
		}
	}
	return func(im *meta.Image) bool {
		for i := range req.FeatureUpdates {
			if u := &req.FeatureUpdates[i]; im.Features()[u.Feature] != u.MaxVersionLevel {
				return false
			}
		}
		return true
	}
}

func createdShows(out *kmsg.CreateTopicsResponse) func(*meta.Image) bool {
	return func(im *meta.Image) bool {
		for i := range out.Topics {
			if t := &out.Topics[i]; t.ErrorCode == 0 && im.Topic(t.Topic) == nil {
				return false
			}
		}
		return true
	}
}

func deletedShows(out *kmsg.DeleteTopicsResponse) func(*meta.Image) bool {
	return func(im *meta.Image) bool {
		for i := range out.Topics {
			t := &out.Topics[i]
			id := meta.UUID(t.TopicID)
			switch {
			case t.ErrorCode != 0:
			case !id.IsZero():
				if im.TopicByID(id) != nil {
					return false
				}
			case t.Topic != nil && im.Topic(*t.Topic) != nil: // before v6 there is only the name
				return false
			}
		}
		return true
	}
}

func grownShows(req *kmsg.CreatePartitionsRequest, out *kmsg.CreatePartitionsResponse) func(*meta.Image) bool {
	want := make(map[string]int32, len(req.Topics))
	for i := range req.Topics {
		want[req.Topics[i].Topic] = req.Topics[i].Count
	}
	return func(im *meta.Image) bool {
		for i := range out.Topics {
			t := im.Topic(out.Topics[i].Topic)
			if out.Topics[i].ErrorCode == 0 && t != nil && len(t.Partitions) < int(want[t.Name]) {
				return false
			}
		}
		return true
	}
}

func replacedShows(req *kmsg.AlterConfigsRequest, out *kmsg.AlterConfigsResponse) func(*meta.Image) bool {
	return func(im *meta.Image) bool {
		for i := range min(len(req.Resources), len(out.Resources)) {
			r := &req.Resources[i]
			if out.Resources[i].ErrorCode != 0 {
				continue
			}
			have := im.Config(meta.Resource{Type: meta.ResourceType(r.ResourceType), Name: r.ResourceName})
			if len(have) != len(r.Configs) {
				return false
			}
			for _, cf := range r.Configs {
				if v, ok := have[cf.Name]; !ok || cf.Value == nil || v != *cf.Value {
					return false
				}
			}
		}
		return true
	}
}

func alteredShows(req *kmsg.IncrementalAlterConfigsRequest, out *kmsg.IncrementalAlterConfigsResponse) func(*meta.Image) bool {
	return func(im *meta.Image) bool {
		for i := range min(len(req.Resources), len(out.Resources)) {
			r := &req.Resources[i]
			if out.Resources[i].ErrorCode != 0 {
				continue
			}
			have := im.Config(meta.Resource{Type: meta.ResourceType(r.ResourceType), Name: r.ResourceName})
			for _, cf := range r.Configs {
				v, ok := have[cf.Name]
				switch {
				case cf.Op == kmsg.IncrementalAlterConfigOpSet && (cf.Value == nil || !ok || v != *cf.Value):
					return false
				case cf.Op == kmsg.IncrementalAlterConfigOpDelete && ok:
					return false
				}
			}
		}
		return true
	}
}
