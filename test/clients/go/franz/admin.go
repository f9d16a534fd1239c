package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/milena-mq/milena/test/clients/go/proof"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type _ctx = context.Context

// withDeadline returns a context that ends by itself; nothing has to cancel it earlier.
func withDeadline(d time.Duration) context.Context {
	c, cancel := context.WithTimeout(ctx, d)
	context.AfterFunc(c, cancel)
	return c
}

func is(what string, got, want error) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

func admin() (string, error) {
	c := client()
	adm := kadm.NewClient(c)
	defer adm.Close()
	t := topic("admin", 3, map[string]string{"retention.ms": "123456789", "cleanup.policy": "delete"})
	p := func(s string) *string { return &s }
	_, again := adm.CreateTopic(ctx, 1, 1, nil, t)
	_, badConf := adm.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": p("soon")}, proof.Name("bad"))
	_, noConf := adm.CreateTopic(ctx, 1, 1, map[string]*string{"no.such.key": p("1")}, proof.Name("bad"))
	_, rf := adm.CreateTopic(ctx, 1, 9, nil, proof.Name("bad"))
	_, parts := adm.CreateTopic(ctx, 0, 1, nil, proof.Name("bad"))
	for _, e := range []error{is("create twice", again, kerr.TopicAlreadyExists), is("bad value", badConf, kerr.InvalidConfig), is("unknown key", noConf, kerr.InvalidConfig), is("factor 9 on fewer brokers", rf, kerr.InvalidReplicationFactor), is("0 partitions", parts, kerr.InvalidPartitions)} {
		if e != nil {
			return "", e
		}
	}
	if _, err := adm.ValidateCreateTopics(ctx, 1, 1, nil, proof.Name("valid")); err != nil {
		return "", err
	}
	// Another broker of several may hear of the topic a moment later.
	var d kadm.TopicDetails
	if err := wait(5*time.Second, func() (bool, string) {
		var err error
		d, err = adm.ListTopics(ctx)
		return err == nil && d.Has(t), fmt.Sprintf("%s is not listed (%v)", t, err)
	}); err != nil {
		return "", err
	}
	if d.Has(proof.Name("valid")) || d.Has(proof.Name("bad")) || len(d[t].Partitions) != 3 || d[t].ID == (kadm.TopicID{}) {
		return "", fmt.Errorf("topics after creation: %+v", d[t])
	}
	if err := configs(adm, t); err != nil {
		return "", err
	}
	if r, err := adm.CreatePartitions(ctx, 2, t); err != nil || r.Error() != nil {
		return "", fmt.Errorf("add 2 partitions: %v %v", err, r.Error())
	}
	shrink, err := adm.UpdatePartitions(ctx, 2, t)
	if err == nil {
		err = shrink.Error()
	}
	if e := is("shrink", err, kerr.InvalidPartitions); e != nil {
		return "", e
	}
	if err := wait(5*time.Second, func() (bool, string) {
		d, _ := adm.ListTopics(ctx, t)
		return len(d[t].Partitions) == 5, fmt.Sprintf("%d partitions, want 5", len(d[t].Partitions))
	}); err != nil {
		return "", err
	}
	if err := deleteRecords(adm, t); err != nil {
		return "", err
	}
	return "create with configs, six refusals, validate only, incremental alter, 3 to 5 partitions, shrink refused, delete records, delete topic", deleteTopic(adm, t)
}

func configs(adm *kadm.Client, t string) error {
	get := func() (map[string]kadm.Config, error) {
		rc, err := adm.DescribeTopicConfigs(ctx, t)
		if err != nil {
			return nil, err
		}
		m := map[string]kadm.Config{}
		for _, c := range rc[0].Configs {
			m[c.Key] = c
		}
		return m, rc[0].Err
	}
	m, err := get()
	if err != nil {
		return err
	}
	if c := m["retention.ms"]; c.MaybeValue() != "123456789" || c.Source.String() != "DYNAMIC_TOPIC_CONFIG" {
		return fmt.Errorf("retention.ms = %s (%v)", c.MaybeValue(), c.Source)
	}
	if c := m["segment.bytes"]; c.MaybeValue() != "1073741824" || c.Source.String() != "DEFAULT_CONFIG" {
		return fmt.Errorf("segment.bytes = %s (%v)", c.MaybeValue(), c.Source)
	}
	if len(m) < 30 {
		return fmt.Errorf("%d topic configs described", len(m))
	}
	p := func(s string) *string { return &s }
	r, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "segment.bytes", Value: p("2000000")}, {Op: kadm.DeleteConfig, Name: "retention.ms"}, {Op: kadm.AppendConfig, Name: "cleanup.policy", Value: p("compact")}}, t)
	if err != nil || r[0].Err != nil {
		return fmt.Errorf("incremental alter: %v %v", err, r)
	}
	bad, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "segment.bytes", Value: p("-4")}}, t)
	if err == nil && len(bad) > 0 {
		err = bad[0].Err
	}
	if e := is("segment.bytes=-4", err, kerr.InvalidConfig); e != nil {
		return e
	}
	return wait(3*time.Second, func() (bool, string) {
		m, err := get()
		rv, sv, cv := m["retention.ms"], m["segment.bytes"], m["cleanup.policy"]
		return err == nil && rv.MaybeValue() == "604800000" && sv.MaybeValue() == "2000000" && cv.MaybeValue() == "delete,compact",
			fmt.Sprintf("after alter: retention.ms=%s segment.bytes=%s cleanup.policy=%s (%v)", rv.MaybeValue(), sv.MaybeValue(), cv.MaybeValue(), err)
	})
}

func deleteRecords(adm *kadm.Client, t string) error {
	// A compacted topic refuses DeleteRecords, so the policy goes back first.
	v := "delete"
	if r, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: &v}}, t); err != nil || r[0].Err != nil {
		return fmt.Errorf("cleanup.policy=delete: %v %v", err, r)
	}
	c := client(kgo.DefaultProduceTopic(t), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer c.Close()
	for i := range 30 {
		if err := c.ProduceSync(ctx, &kgo.Record{Partition: 1, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
			return err
		}
	}
	var os kadm.Offsets
	os.Add(kadm.Offset{Topic: t, Partition: 1, At: 12})
	r, err := adm.DeleteRecords(ctx, os)
	if err != nil || r.Error() != nil {
		return fmt.Errorf("delete records: %v %v", err, r.Error())
	}
	if x, _ := r.Lookup(t, 1); x.LowWatermark != 12 {
		return fmt.Errorf("low watermark %d, want 12", x.LowWatermark)
	}
	if o, _, err := listOffsetP(c, t, 1, -2); err != nil || o != 12 {
		return fmt.Errorf("log start %d (%v), want 12", o, err)
	}
	var past kadm.Offsets
	past.Add(kadm.Offset{Topic: t, Partition: 1, At: 31})
	r, err = adm.DeleteRecords(ctx, past)
	if err == nil {
		err = r.Error()
	}
	return is("deleting past the end", err, kerr.OffsetOutOfRange)
}

func deleteTopic(adm *kadm.Client, t string) error {
	if r, err := adm.DeleteTopics(ctx, t); err != nil || r.Error() != nil {
		return fmt.Errorf("delete topic: %v %v", err, r.Error())
	}
	if err := wait(5*time.Second, func() (bool, string) {
		d, _ := adm.ListTopics(ctx)
		return !d.Has(t), "a deleted topic is still listed"
	}); err != nil {
		return err
	}
	r, err := adm.DeleteTopics(ctx, t)
	if err == nil {
		err = r.Error()
	}
	return is("delete twice", err, kerr.UnknownTopicOrPartition)
}

// names: a topic name is a file name too, so nothing like a path may pass.
func names() (string, error) {
	adm := kadm.NewClient(client())
	defer adm.Close()
	bad := []string{"../x", ".", "..", "a/b", "a b", "a\x00b", "", "ü", strings.Repeat("n", 250)}
	for _, n := range bad {
		_, err := adm.CreateTopic(ctx, 1, 1, nil, n)
		if e := is(fmt.Sprintf("create %.20q", n), err, kerr.InvalidTopicException); e != nil {
			return "", e
		}
	}
	long := (proof.Name("l") + strings.Repeat("n", 249))[:249]
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, long); err != nil {
		return "", fmt.Errorf("a name of 249 characters: %w", err)
	}
	dot := proof.Name("col.lide")
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, dot); err != nil {
		return "", err
	}
	_, err := adm.CreateTopic(ctx, 1, 1, nil, strings.ReplaceAll(dot, ".", "_"))
	if e := is("a name that collides with another by . and _", err, kerr.InvalidTopicException); e != nil {
		return "", e
	}
	return fmt.Sprintf("%d bad names and a collision refused, 249 characters allowed", len(bad)), nil
}
