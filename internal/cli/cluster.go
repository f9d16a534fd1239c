package cli

import (
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) clusterCommand() *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "Watch over the cluster: status, growth, balance, quorum, certificates"}
	describe := &cobra.Command{
		Use:   "describe",
		Short: "Show the cluster as a whole",
		Args:  args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client().Cluster(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(cl, func(w io.Writer) error {
				err := facts(w, "Cluster", cl.ID, "Controller", number(int64(cl.Controller)), "Topics", count(int64(cl.Topics)), "Partitions", count(int64(cl.Partitions)),
					"No leader", cl.Leaderless, "Under-replicated", cl.Behind)
				if err != nil {
					return err
				}
				fmt.Fprintln(w)
				return brokers(w, cl)
			})
		},
	}
	list := &cobra.Command{
		Use:   "brokers",
		Short: "List brokers",
		Args:  args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client().Cluster(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(cl.Brokers, func(w io.Writer) error { return brokers(w, cl) })
		},
	}
	apis := &cobra.Command{
		Use:   "apis",
		Short: "List the request types and versions a broker serves",
		Args:  args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().APIs(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) error {
				t := newTable(">KEY", "API", ">FROM", ">TO")
				for _, x := range list {
					t.row(x.Key, x.Name, x.Min, x.Max)
				}
				return t.write(w)
			})
		},
	}
	c.AddCommand(a.clusterStatus(), describe, list, apis, a.clusterAddBroker(), a.clusterDecommission(), a.clusterRebalance(), a.clusterQuorum(), a.clusterCerts())
	return c
}

func brokers(w io.Writer, cl admin.Cluster) error {
	t := newTable(">BROKER", "ADDRESS", "RACK", ">LEADS", ">PARTITIONS", ">SIZE", "")
	for _, b := range cl.Brokers {
		note := ""
		if b.Controller {
			note = "controller"
		}
		for _, d := range b.Dirs {
			if d.Error != "" {
				note += " " + d.Path + ": " + d.Error
			}
		}
		t.row(b.ID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), b.Rack, b.Leads, b.Partitions, size(b.Size), note)
	}
	return t.write(w)
}
