package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/server"
)

// UpdateFeatures (key 57), versions 0-2: other levels are finalized, all that are named or none.
//
//	v1  the direction of a change, and a dry run (KIP-778)
//	v2  one error for the whole request in place of one for each feature (KIP-1022)
func serveUpdateFeatures(c *Call) server.Reply {
	req := c.Request.(*kmsg.UpdateFeaturesRequest)
	resp := kmsg.NewPtrUpdateFeaturesResponse()
	wishes := make([]control.FeatureUpdate, len(req.FeatureUpdates))
	for i := range req.FeatureUpdates {
		u := &req.FeatureUpdates[i]
		wishes[i] = control.FeatureUpdate{Name: u.Feature, Level: u.MaxVersionLevel, Type: control.UpgradeType(u.UpgradeType)}
		if req.Version == 0 {
			if wishes[i].Type = control.Upgrade; u.AllowDowngrade {
				wishes[i].Type = c.direction(u)
			}
		}
	}
	ctx, cancel := c.admin(req.TimeoutMillis)
	defer cancel()
	for i, err := range c.Controller.UpdateFeatures(ctx, wishes, req.Version >= 1 && req.ValidateOnly) {
		if req.Version >= 2 {
			if err != nil && resp.ErrorCode == 0 {
				resp.ErrorCode, resp.ErrorMessage = c.refusedAs(err)
			}
			continue
		}
		r := kmsg.NewUpdateFeaturesResponseResult()
		r.Feature = wishes[i].Name
		r.ErrorCode, r.ErrorMessage = c.refusedAs(err)
		resp.Results = append(resp.Results, r)
	}
	return c.ready(resp)
}

// direction is what version 0 means by allowing a downgrade: either way.
func (c *Call) direction(u *kmsg.UpdateFeaturesRequestFeatureUpdate) control.UpgradeType {
	if c.Image != nil && u.MaxVersionLevel < c.Image.Features()[u.Feature] {
		return control.SafeDowngrade
	}
	return control.Upgrade
}
