package api

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
)

// ListGroups (key 16), versions 0-5: the groups whose coordinator this broker is; clients ask every broker.
//
//	v4  filter by state (KIP-518)   v5  group type, filter by type (KIP-848)
func serveListGroups(c *Call) server.Reply {
	req := c.Request.(*kmsg.ListGroupsRequest)
	call := c.Groups.List(group.List{States: req.StatesFilter, Types: req.TypesFilter})
	return c.later(call.Ready(), func() kmsg.Response {
		resp := kmsg.NewPtrListGroupsResponse()
		for _, r := range call.Results() {
			if err := asRefusal(r.Err); err == kerr.NotCoordinator {
				continue // the partition has just moved; its groups are listed there
			} else if err != nil {
				resp.ErrorCode, resp.Groups = c.failed(err.Code), nil
				break
			}
			groups, _ := r.Value.([]kmsg.ListGroupsResponseGroup)
			resp.Groups = append(resp.Groups, groups...)
		}
		slices.SortFunc(resp.Groups, func(a, b kmsg.ListGroupsResponseGroup) int { return cmp.Compare(a.Group, b.Group) })
		return resp
	})
}
