package admin

import (
	"context"
	"sort"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Cluster is what DescribeCluster and the metadata say.
type Cluster struct {
	ID         string   `json:"id"`
	Controller int32    `json:"controller"` // -1: none known
	Brokers    []Broker `json:"brokers"`
	Topics     int      `json:"topics"`
	Partitions int      `json:"partitions"`
	Leaderless int      `json:"partitions_without_leader"`
	Behind     int      `json:"partitions_under_replicated"`
}

// Broker is one broker.
type Broker struct {
	ID         int32  `json:"id"`
	Host       string `json:"host"`
	Port       int32  `json:"port"`
	Rack       string `json:"rack,omitempty"`
	Controller bool   `json:"controller,omitempty"`
	Leads      int    `json:"leads"`      // partitions it leads
	Partitions int    `json:"partitions"` // replicas it holds
	Size       int64  `json:"size_bytes"` // of all its logs; -1: not known
	Dirs       []Dir  `json:"dirs"`
}

// Dir is one data directory of a broker. Total and Free are -1 when they are not known.
type Dir struct {
	Path  string `json:"path"`
	Size  int64  `json:"size_bytes"`
	Error string `json:"error,omitempty"`
}

// Cluster describes the whole cluster.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	out := Cluster{Brokers: []Broker{}}
	err := c.with(ctx, "describe cluster", func(ctx context.Context, adm *kadm.Client) error {
		m, err := adm.Metadata(ctx)
		if err != nil {
			return err
		}
		out.ID, out.Controller = m.Cluster, m.Controller
		leads, holds := map[int32]int{}, map[int32]int{}
		for _, t := range m.Topics {
			out.Topics++
			for _, p := range t.Partitions {
				out.Partitions++
				leads[p.Leader]++
				if p.Leader < 0 {
					out.Leaderless++
				}
				if len(p.ISR) < len(p.Replicas) {
					out.Behind++
				}
				for _, r := range p.Replicas {
					holds[r]++
				}
			}
		}
		dirs, _ := adm.DescribeAllLogDirs(ctx, nil) // extra: a cluster without this right is described too
		for _, b := range m.Brokers {
			x := Broker{ID: b.NodeID, Host: b.Host, Port: b.Port, Controller: b.NodeID == m.Controller, Leads: leads[b.NodeID], Partitions: holds[b.NodeID], Size: -1, Dirs: []Dir{}}
			if b.Rack != nil {
				x.Rack = *b.Rack
			}
			for _, d := range dirs[b.NodeID].Sorted() {
				y := Dir{Path: d.Dir, Size: d.Size()}
				if d.Err != nil {
					y.Error = errorName(d.Err)
				}
				x.Size = max(x.Size, 0) + y.Size
				x.Dirs = append(x.Dirs, y)
			}
			out.Brokers = append(out.Brokers, x)
		}
		sort.Slice(out.Brokers, func(i, j int) bool { return out.Brokers[i].ID < out.Brokers[j].ID })
		return nil
	})
	return out, err
}

// API is one request type that a broker serves.
type API struct {
	Key  int16  `json:"key"`
	Name string `json:"name"`
	Min  int16  `json:"min_version"`
	Max  int16  `json:"max_version"`
}

// APIs lists what a broker serves: one that answers at the bootstrap addresses.
func (c *Client) APIs(ctx context.Context) ([]API, error) {
	const what = "list APIs"
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "milena", "0"
	resp, err := request[*kmsg.ApiVersionsResponse](ctx, c, what, req)
	if err != nil {
		return nil, err
	}
	if err := codeError(what, resp.ErrorCode, nil); err != nil {
		return nil, err
	}
	out := []API{}
	for _, k := range resp.ApiKeys {
		name := kmsg.NameForKey(k.ApiKey)
		if name == "" {
			name = "Unknown"
		}
		out = append(out, API{k.ApiKey, name, k.MinVersion, k.MaxVersion})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out, nil
}
