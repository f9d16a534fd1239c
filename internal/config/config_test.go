package config

import (
	"bufio"
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

var rewrite = flag.Bool("rewrite", false, "write golden files again")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is printed now; run go test -rewrite and look at the diff", path)
	}
}

func TestDocsAreTheTable(t *testing.T) {
	var b bytes.Buffer
	if err := WriteDocs(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("..", "..", "docs", "config.md"), b.String())
}

// deliberate are the differences from Kafka's defaults; the value is Kafka's.
var deliberate = map[string]string{
	"broker listeners":                    "PLAINTEXT://:9092",
	"broker node.id":                      "NODEFAULT",
	"broker log.dir":                      "/tmp/kafka-logs",
	"broker process.roles":                "NODEFAULT",
	"broker log.flush.interval.messages":  "9223372036854775807",
	"topic flush.messages":                "9223372036854775807",
	"broker broker.heartbeat.interval.ms": "2000",
	"broker broker.session.timeout.ms":    "9000",
	"broker replica.lag.time.max.ms":      "30000",
}

func TestTableEqualsKafkas(t *testing.T) {
	text, err := os.ReadFile("testdata/kafka-4.3.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	resources := map[string]ResourceType{"broker": ResourceBroker, "topic": ResourceTopic, "group": ResourceGroup}
	seen := map[*Def]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		p := strings.Split(line, "|")
		if len(p) != 5 {
			continue
		}
		d := Find(resources[p[0]], p[1])
		if d == nil {
			t.Errorf("%s key %s is missing", p[0], p[1])
			continue
		}
		seen[d] = true
		if d.Type.String() != p[2] {
			t.Errorf("%s: type %s, Kafka has %s", d.Name, d.Type, p[2])
		}
		if p[0] == "broker" && d.Scope.String() != p[4] {
			t.Errorf("%s: scope %s, Kafka has %s", d.Name, d.Scope, p[4])
		}
		def := d.Default
		if !d.HasDefault {
			def = "NULL"
		}
		if kafka, ok := deliberate[p[0]+" "+p[1]]; ok {
			if p[3] != kafka || d.KafkaDefault == "" {
				t.Errorf("%s: the difference is not marked", d.Name)
			}
		} else if def != p[3] && !(p[3] == "NODEFAULT" && !d.HasDefault) {
			t.Errorf("%s: default %q, Kafka has %q", d.Name, def, p[3])
		}
	}
	dynamicOnly := []string{"leader.replication.throttled.rate", "follower.replication.throttled.rate", "replica.alter.log.dirs.io.max.bytes.per.second"}
	for _, d := range all {
		if !seen[d] && !d.Own && d.Resource != ResourceClientMetrics && !has(dynamicOnly, d.Name) {
			t.Errorf("%s %s is not Kafka's and not marked as our own", d.Resource, d.Name)
		}
	}
	if n := len(Keys(ResourceTopic)); n != 34 {
		t.Errorf("%d topic keys, want 33 public and 1 internal", n)
	}
}

func TestRowsAreConsistent(t *testing.T) {
	ids, env := map[tableID]bool{}, map[string]bool{}
	for _, d := range all {
		if id := (tableID{d.Resource, d.Name}); ids[id] {
			t.Errorf("%s %s is there twice", d.Resource, d.Name)
		} else {
			ids[id] = true
		}
		if d.HasDefault {
			if err := d.Validate(d.Default); err != nil {
				t.Errorf("default: %v", err)
			}
			if got := d.Format(d.Default); got != d.Default {
				t.Errorf("%s: default %q is not in normal form %q", d.Name, d.Default, got)
			}
		}
		if (d.Status == Live) != (d.Reason == "") {
			t.Errorf("%s: status %s with reason %q", d.Name, d.Status, d.Reason)
		}
		if !strings.HasSuffix(d.Doc, ".") {
			t.Errorf("%s: doc %q is no sentence", d.Name, d.Doc)
		}
		for _, s := range d.Synonyms {
			if Find(ResourceBroker, s.Name) == nil {
				t.Errorf("%s: synonym %s is no broker key", d.Name, s.Name)
			}
		}
		// The default of a topic or group key is what its broker keys say when nothing is set.
		if n := len(d.Synonyms); n > 0 {
			last := d.Synonyms[n-1]
			if got, _ := convert(Find(ResourceBroker, last.Name).Default, last.Factor); got != d.Default {
				t.Errorf("%s: default %q, its broker key says %q", d.Name, d.Default, got)
			}
		}
		if d.Resource == ResourceBroker {
			if env[EnvName(d.Name)] {
				t.Errorf("%s: two keys for one environment variable", d.Name)
			}
			env[EnvName(d.Name)] = true
			if name := strings.TrimPrefix(EnvName(d.Name), EnvPrefix); notKey(name) {
				t.Errorf("%s cannot be set by environment", d.Name)
			}
		}
	}
}

// readByName are keys that other packages read without naming their variables.
var readByName = map[string]string{
	"OffsetsTopicNumPartitions":     "internal/control/internal.go reads PREFIX.num.partitions",
	"OffsetsTopicReplicationFactor": "internal/control/internal.go reads PREFIX.replication.factor",
	"OffsetsTopicSegmentBytes":      "internal/control/internal.go reads PREFIX.segment.bytes",

	"TransactionStateLogNumPartitions":     "internal/control/internal.go reads PREFIX.num.partitions",
	"TransactionStateLogReplicationFactor": "internal/control/internal.go reads PREFIX.replication.factor",
	"TransactionStateLogSegmentBytes":      "internal/control/internal.go reads PREFIX.segment.bytes",
	"TransactionStateLogMinISR":            "internal/control/internal.go reads PREFIX.min.isr",
}

var keyVariable = regexp.MustCompile(`(?m)^\t(\w+) += (topic|broker|groupKey|clientMetrics)\[[^(]*\("([^"]+)"`)

// A status must be true: a key that is Live is read by somebody, and one that says it has no effect is not.
func TestStatusesAreTrue(t *testing.T) {
	resources := map[string]ResourceType{"topic": ResourceTopic, "broker": ResourceBroker, "groupKey": ResourceGroup, "clientMetrics": ResourceClientMetrics}
	code, own := sources(t)
	twins := map[string]bool{"broker.id": true}
	for _, d := range Keys(ResourceTopic) {
		for _, s := range d.Synonyms {
			twins[s.Name] = twins[s.Name] || d.Status == Live
		}
	}
	n := 0
	for _, m := range keyVariable.FindAllStringSubmatch(own, -1) {
		n++
		variable, d := m[1], Find(resources[m[2]], m[3])
		read := readByName[variable] != "" || strings.Contains(code, "config."+variable+".") || strings.Contains(own, variable+".Of(") || strings.Contains(own, variable+".Lookup(")
		switch {
		case variable == "_" && d.Status == Live && !twins[d.Name]:
			t.Errorf("%s says it is live, but has no variable by which it could be read", d.Name)
		case variable == "_":
		case d.Status == Live && !read:
			t.Errorf("%s says it is live, but nobody reads config.%s", d.Name, variable)
		case d.Status != Live && strings.Contains(code, "config."+variable+"."):
			t.Errorf("%s says it is %s, but config.%s is read", d.Name, d.Status, variable)
		}
	}
	if n != len(all) {
		t.Errorf("%d rows found in the source, %d in the table", n, len(all))
	}
}

// sources is the code of all other packages, and that of this one.
func sources(t *testing.T) (others, own string) {
	t.Helper()
	var a, b strings.Builder
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if filepath.Dir(path) == filepath.Join("..", "config") {
			b.Write(text)
		} else {
			a.Write(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a.String(), b.String()
}

func TestLayersInKafkasOrder(t *testing.T) {
	l := Layers{Static: StaticOf(map[string]string{"log.retention.hours": "2"})}
	steps := []struct {
		want int64
		set  func()
	}{
		{7200000, func() {}},
		{180000, func() {
			l.Static = StaticOf(map[string]string{"log.retention.hours": "2", "log.retention.minutes": "3"})
		}},
		{9, func() { l.DynamicDefault = map[string]string{"log.retention.ms": "9"} }},
		{8, func() { l.DynamicBroker = map[string]string{"log.retention.ms": "8"} }},
		{7, func() { l.Topic = map[string]string{"retention.ms": "7"} }},
	}
	for _, s := range steps {
		s.set()
		if got := RetentionMs.Of(l); got != s.want {
			t.Errorf("retention.ms = %d, want %d", got, s.want)
		}
	}
	if got := RetentionMs.Of(Layers{Static: StaticOf(map[string]string{"log.retention.hours": "-1"})}); got != -1 {
		t.Errorf("retention without limit reads as %d", got)
	}
	if got := RetentionMs.Of(Layers{}); got != 604800000 {
		t.Errorf("default retention.ms = %d", got)
	}
	if FlushMessages.Of(Layers{}) != 1 {
		t.Error("flush.messages must be 1: every acknowledged record is on disk")
	}
	if _, ok := InternalSegmentBytes.Lookup(Layers{}); ok {
		t.Error("internal.segment.bytes has no default")
	}
}

func TestDescribeGolden(t *testing.T) {
	l := Layers{
		Static:         StaticOf(map[string]string{"log.segment.bytes": "2097152", "log.retention.hours": "1", "sasl.jaas.config": "hush"}),
		DynamicDefault: map[string]string{"log.segment.bytes": "3145728"},
		DynamicBroker:  map[string]string{"log.segment.bytes": "4194304"},
		Topic:          map[string]string{"segment.bytes": "5242880", "cleanup.policy": "compact, delete"},
		Group:          map[string]string{"consumer.session.timeout.ms": "50000"},
	}
	var b strings.Builder
	show := func(v *string) string {
		if v == nil {
			return "null"
		}
		return *v
	}
	for _, r := range []ResourceType{ResourceTopic, ResourceBroker, ResourceGroup, ResourceClientMetrics} {
		for _, e := range Describe(r, l) {
			b.WriteString(r.String() + " " + e.Name + " = " + show(e.Value) + " source " + formatLong(int64(e.Source)))
			if e.ReadOnly {
				b.WriteString(" read-only")
			}
			for _, s := range e.Synonyms {
				b.WriteString(" [" + s.Name + "=" + show(s.Value) + " " + formatLong(int64(s.Source)) + "]")
			}
			b.WriteString("\n")
		}
	}
	if strings.Contains(b.String(), "hush") {
		t.Error("a sensitive value is shown")
	}
	golden(t, "testdata/describe.txt", b.String())
}

func TestValidationSentences(t *testing.T) {
	var b strings.Builder
	check := func(r ResourceType, kv ...string) {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		b.WriteString(strings.Join(kv, " ") + ": ")
		if err := ValidateSet(r, m, Layers{}); err != nil {
			b.WriteString(err.Error() + "\n")
		} else {
			b.WriteString("ok\n")
		}
	}
	for _, c := range [][]string{
		{"retention.ms", "abc"}, {"retention.ms", "-2"}, {"segment.bytes", "1024"}, {"internal.segment.bytes", "1024"},
		{"retension.ms", "1"}, {"foo", "1"}, {"cleanup.policy", ""}, {"cleanup.policy", "compact,delete"}, {"cleanup.policy", "compact,compact"},
		{"cleanup.policy", "shrink"}, {"compression.type", "zip"}, {"compression.gzip.level", "0"}, {"compression.gzip.level", "-1"},
		{"min.cleanable.dirty.ratio", "1.1"}, {"min.cleanable.dirty.ratio", "NaN"}, {"preallocate", "yes"}, {"preallocate", "TRUE"},
		{"remote.storage.enable", "true"}, {"remote.storage.enable", "false"}, {"follower.replication.throttled.replicas", "0:1,1:x"},
		{"follower.replication.throttled.replicas", "*"}, {"min.compaction.lag.ms", "5", "max.compaction.lag.ms", "4"},
		{"retention.ms", "10", "local.retention.ms", "11"}, {"retention.ms", "10", "local.retention.ms", "10"}, {"retention.bytes", "10", "local.retention.bytes", "-1"},
		{"max.message.bytes", "9999999999"}, {"flush.messages", "0"},
	} {
		check(ResourceTopic, c...)
	}
	for _, c := range [][]string{
		{"consumer.session.timeout.ms", "1000"}, {"consumer.session.timeout.ms", "60001"}, {"consumer.session.timeout.ms", "50000"},
		{"share.auto.offset.reset", "by_duration:P1DT2H3M4.5S"}, {"share.auto.offset.reset", "by_duration:-P1D"}, {"share.auto.offset.reset", "by_duration:PT"},
		{"streams.num.standby.replicas", "3"},
	} {
		check(ResourceGroup, c...)
	}
	for _, c := range []struct {
		name string
		m    map[string]string
	}{
		{"", map[string]string{"log.retention.ms": "1"}}, {"", map[string]string{"node.id": "3"}}, {"", map[string]string{"listeners": "PLAINTEXT://:1"}}, {"", map[string]string{"cordoned.log.dirs": "/a"}},
		{"1", map[string]string{"cordoned.log.dirs": "/a"}}, {"1", map[string]string{"cordoned.log.dirs": "*"}}, {"1", map[string]string{"log.cleaner.threads": "-1"}}, {"1", map[string]string{"sasl.jaas.config": "x"}},
	} {
		for k, v := range c.m {
			b.WriteString("broker " + c.name + " " + k + " " + v + ": ")
		}
		if err := ValidateBroker(c.name, c.m, Layers{}); err != nil {
			b.WriteString(err.Error() + "\n")
		} else {
			b.WriteString("ok\n")
		}
	}
	golden(t, "testdata/validate.txt", b.String())
}

func TestListOperations(t *testing.T) {
	d := CleanupPolicy.Def
	if got := d.AppendTo("", false, "compact"); got != "delete,compact" {
		t.Errorf("append to the default: %q", got)
	}
	if got := d.AppendTo("compact", true, "compact"); got != "compact" {
		t.Errorf("append twice: %q", got)
	}
	if got := d.SubtractFrom("compact,delete", true, "delete"); got != "compact" {
		t.Errorf("subtract: %q", got)
	}
}

func TestStartupErrorsAreOneLine(t *testing.T) {
	var b strings.Builder
	try := func(args []string, file string, env ...string) {
		_, err := Parse(args, strings.NewReader(file), env)
		text := "ok"
		if err != nil {
			text = err.Error()
		}
		if strings.Contains(text, "\n") {
			t.Errorf("%q is not one line", text)
		}
		b.WriteString(text + "\n")
	}
	try(nil, "log.retension.hours=1")
	try(nil, "# x\nlog.segment.bytes = 12x")
	try(nil, "", "MILENA_LOG_RETENTION_HOUR=1")
	try(nil, "", "MILENA_NUM_PARTITIONS=0")
	try(nil, "", "MILENA_PORT_9092_TCP=tcp://10.0.0.1:9092", "MILENA_SERVICE_HOST=10.0.0.1", "MILENA_BOOTSTRAP=x", "PATH=/bin")
	try([]string{"retention.ms=5"}, "")
	try([]string{"num.partitions"}, "")
	try(nil, "zookeeper.connect=localhost:2181")
	try(nil, "inter.broker.protocol.version=3.9")
	try(nil, "listener.name.sasl_ssl.plain.sasl.jaas.config=x")
	try(nil, "remote.log.storage.system.enable=true")
	try(nil, "remote.log.storage.system.enable=false")
	try([]string{"listeners=SSL://:9093"}, "")
	try([]string{"listeners=PLAINTEXT://:9092,OTHER://:9093"}, "")
	try([]string{"listeners=PLAINTEXT://:9092,OTHER://:9092", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT"}, "")
	try([]string{"listeners=PLAINTEXT://0.0.0.0:9092"}, "")
	try([]string{"listeners=PLAINTEXT://0.0.0.0:9092", "advertised.listeners=PLAINTEXT://example.org:9092"}, "")
	try([]string{"listeners=PLAINTEXT:9092"}, "")
	try([]string{"listeners=PLAINTEXT://:70000"}, "")
	try([]string{"listeners="}, "")
	try([]string{"advertised.listeners=OTHER://h:1"}, "")
	try([]string{"inter.broker.listener.name=OTHER"}, "")
	try([]string{"log.dirs= , "}, "")
	try([]string{"group.min.session.timeout.ms=10", "group.max.session.timeout.ms=9"}, "")
	try([]string{"delegation.token.secret.key=hidden"}, "")
	try(nil, `a=\u12`)
	golden(t, "testdata/startup.txt", b.String())
}

// The file that Apache Kafka 4.3 ships for a first start, with its settings, must start Milena.
func TestKafkasOwnServerPropertiesStart(t *testing.T) {
	s, err := Parse([]string{"node.id=5"}, strings.NewReader(`
process.roles=broker,controller
broker.id=7
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/a,\
    /tmp/b
num.partitions=1
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
`), []string{"MILENA_NUM_PARTITIONS=12"})
	if err != nil {
		t.Fatal(err)
	}
	l := Layers{Static: s}
	ls, err := ParseListeners(l)
	if err != nil || len(ls) != 1 || ls[0].Address() != ":9092" {
		t.Fatalf("listeners %v, %v", ls, err)
	}
	if ad, err := ParseAdvertised(l, ls); err != nil || len(ad) != 1 || ad[0].String() != "PLAINTEXT://localhost:9092" {
		t.Fatalf("advertised %v, %v", ad, err)
	}
	if NodeID.Of(l) != 5 || NumPartitions.Of(l) != 12 {
		t.Errorf("flags before environment before file: node %d, partitions %d", NodeID.Of(l), NumPartitions.Of(l))
	}
	if got := DataDirs(l); len(got) != 2 || got[1] != "/tmp/b" {
		t.Errorf("directories %q", got)
	}
	if s, _ = Parse(nil, strings.NewReader("broker.id=7"), nil); NodeID.Static(s) != 7 {
		t.Error("broker.id stands in for node.id")
	}
}

func TestProperties(t *testing.T) {
	got, err := readProperties(strings.NewReader("# c\n! c \\\n  a = b c \nd:e\\\n   f\\\n\ng\\=h i\n j\\ k\tl\r\nu=\\u00e9\\uD83D\\uDE00\\t\\x\nempty\n=v\nlast=x\\"))
	if err != nil {
		t.Fatal(err)
	}
	want := []property{{"a", "b c ", 3}, {"d", "ef", 4}, {"g=h", "i", 7}, {"j k", "l", 8}, {"u", "é😀\tx", 9}, {"empty", "", 10}, {"", "v", 11}, {"last", "x", 12}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d: got %v, want %v", i, got[i], want[i])
		}
	}
	if _, err := readProperties(strings.NewReader(strings.Repeat("x", maxPropertiesBytes+1))); err == nil {
		t.Error("a file without end is read")
	}
}

func FuzzProperties(f *testing.F) {
	f.Add("a=b\n\\u0041 : c\\\n d\r\n!x")
	f.Add("\\")
	f.Add("k=\\ud800\\uzzzz")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ReadProperties(strings.NewReader(text))
		if err != nil {
			return
		}
		for k, v := range m {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				continue // not text
			}
			var b bytes.Buffer
			w := bufio.NewWriter(&b)
			if err := WriteProperty(w, k, v); err != nil {
				t.Fatal(err)
			}
			w.Flush()
			back, err := ReadProperties(&b)
			if err != nil || back[k] != v {
				t.Fatalf("%q=%q written and read back: %q, %v", k, v, back, err)
			}
		}
	})
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{"log.retension.hours": "log.retention.hours", "num.partition": "num.partitions", "xyz": "", "listenesr": "listeners", strings.Repeat("l", 1000): ""} {
		if got := nearest(ResourceBroker, name); got != want {
			t.Errorf("nearest %s: %q, want %q", name, got, want)
		}
	}
}

func BenchmarkOf(b *testing.B) {
	l := Layers{Static: StaticOf(map[string]string{"log.retention.hours": "2"}), Topic: map[string]string{"segment.bytes": "2097152"}}
	b.ReportAllocs()
	for b.Loop() {
		SegmentBytes.Of(l)
		FlushMessages.Of(l)
	}
}
