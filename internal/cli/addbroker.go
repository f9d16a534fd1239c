package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/milena-mq/milena/internal/config"
	"github.com/spf13/cobra"
)

// newcomer is the result of cluster add-broker.
type newcomer struct {
	ID      int32             `json:"id"`
	Join    []string          `json:"join,omitempty"`
	Store   string            `json:"coordinator,omitempty"` // where the metadata lies outside the brokers
	Command string            `json:"command"`
	Broker  *admin.BrokerInfo `json:"broker,omitempty"` // with --wait: as it has registered
}

func (a *app) clusterAddBroker() *cobra.Command {
	var listen, advertise, peer, data, rack string
	var join []string
	var id int32
	var wait bool
	var within time.Duration
	c := &cobra.Command{
		Use:   "add-broker",
		Short: "Print what to run on a new machine so that it joins the cluster",
		Long: `Print the command that makes a new machine a broker of this cluster, with a number that is free. Nothing is
changed by this: the cluster grows when you run that command there.

With --wait it then looks until the new broker takes part, and says what to do next.`,
		Example: `  milena cluster add-broker --host broker4.example.org
  milena cluster add-broker --host broker4.example.org --rack r2 --wait`,
		Args: args(0, 0, "no argument"),
	}
	var host string
	p := c.Flags()
	p.StringVar(&host, "host", "", "name or address of the new machine (default: this machine, with free ports)")
	p.Int32Var(&id, "node-id", 0, "number of the new broker (default: the smallest that is free)")
	p.StringVar(&listen, "listen", "", "host:port where it listens to clients (default: 0.0.0.0:9092)")
	p.StringVar(&advertise, "advertise", "", "host:port that clients are told (default: --host and the port of --listen)")
	p.StringVar(&peer, "peer", "", "host:port where other brokers reach it (default: --host and port 9094)")
	p.StringVar(&data, "data", "", "its data directories (default: /var/lib/milena)")
	p.StringVar(&rack, "rack", "", "its rack or zone")
	p.StringSliceVar(&join, "join", nil, "peer addresses of the cluster (default: as the quorum's members tell)")
	p.BoolVar(&wait, "wait", false, "wait until the new broker takes part")
	p.DurationVar(&within, "within", 10*time.Minute, "how long --wait waits")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.client().Status(cmd.Context())
		if err != nil {
			return err
		}
		n, err := a.newcomer(cmd, s, id, join)
		if err != nil {
			return err
		}
		if err := n.command(host, listen, advertise, peer, data, rack); err != nil {
			return err
		}
		if !wait {
			return a.show(n, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "Run this on the new machine:\n\n  %s\n\nThen let it take its share: milena cluster rebalance\n", clean(n.Command))
				return err
			})
		}
		fmt.Fprintf(a.io.Err, "Run this on the new machine; waiting up to %s for broker %d:\n\n  %s\n\n", within, n.ID, clean(n.Command))
		ctx, cancel := context.WithTimeout(cmd.Context(), within)
		defer cancel()
		b, err := a.client().AwaitBroker(ctx, n.ID)
		if err != nil {
			return err
		}
		n.Broker = &b
		return a.done(n, "Broker %d at %s takes part. It holds nothing until you run: milena cluster rebalance", b.ID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))
	}
	return c
}

func (a *app) newcomer(cmd *cobra.Command, s admin.Status, id int32, join []string) (*newcomer, error) {
	n := &newcomer{ID: s.FreeID(), Join: join}
	if cmd.Flags().Changed("node-id") {
		n.ID = id
		for i := range s.Brokers {
			if s.Brokers[i].ID == id {
				return nil, fmt.Errorf("number %d belongs to the broker at %s: free is %d", id, net.JoinHostPort(s.Brokers[i].Host, strconv.Itoa(int(s.Brokers[i].Port))), s.FreeID())
			}
		}
	}
	if len(n.Join) == 0 && s.Quorum != nil {
		for _, v := range s.Quorum.Voters {
			if v.Address != "" {
				n.Join = append(n.Join, v.Address)
			}
		}
	}
	if len(n.Join) == 0 && s.Quorum != nil && s.Quorum.Elsewhere() {
		cs, err := a.client().Configs(cmd.Context(), admin.ResourceBroker, strconv.Itoa(int(s.Controller)), config.Coordinator.Name)
		if err == nil && len(cs) == 1 && cs[0].Value != nil {
			n.Store = *cs[0].Value
		}
	}
	if len(n.Join) == 0 && n.Store == "" {
		return nil, fmt.Errorf("the cluster does not tell the peer addresses of its brokers: name them with --join (in the configuration of each they are peer.listener or its entry of cluster)")
	}
	return n, nil
}

// command spells what to run. Without a host it is this machine, where every port may be taken: the
// system then chooses.
func (n *newcomer) command(host, listen, advertise, peer, data, rack string) error {
	if host == "" {
		listen, peer, data = or(listen, "127.0.0.1:0"), or(peer, "127.0.0.1:0"), or(data, fmt.Sprintf("./milena-data-%d", n.ID))
	} else {
		listen, data = or(listen, "0.0.0.0:9092"), or(data, "/var/lib/milena")
		_, port, err := net.SplitHostPort(listen)
		if err != nil {
			return usagef("--listen %s: want host:port", listen)
		}
		advertise, peer = or(advertise, net.JoinHostPort(host, port)), or(peer, net.JoinHostPort(host, "9094"))
	}
	how, which := "--join", strings.Join(n.Join, ",")
	if n.Store != "" {
		how, which = "--coordinator", n.Store
	}
	words := []string{"milena", "serve", "--node-id", strconv.Itoa(int(n.ID)), how, which, "--peer", peer, "--listen", listen}
	if advertise != "" {
		words = append(words, "--advertise", advertise)
	}
	words = append(words, "--data", data)
	if rack != "" {
		words = append(words, "--set", "broker.rack="+rack)
	}
	if !loopback(peer) {
		// Without TLS a broker refuses to be reached from outside; milena cluster certs makes these files,
		// which are called after the host.
		name, _, _ := net.SplitHostPort(peer)
		words = append(words, "--set", "peer.tls.ca=ca.crt", "--set", "peer.tls.certificate="+name+".crt", "--set", "peer.tls.key="+name+".key")
	}
	for i, w := range words {
		words[i] = quoted(w)
	}
	n.Command = strings.Join(words, " ")
	return nil
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// quoted makes a word safe to be copied into a shell.
func quoted(w string) string {
	if strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=:,./@[]") == "" {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
