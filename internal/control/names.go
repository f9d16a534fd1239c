package control

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/meta"
)

const maxTopicName = 249

// CheckTopicName holds a name to Kafka's rules (kafka.md 6.6): INVALID_TOPIC_EXCEPTION with Kafka's
// sentence. A good name is also safe as part of a file name.
func CheckTopicName(name string) error {
	if why := badName(name); why != "" {
		return refuse(kerr.InvalidTopicException, "Topic name is invalid: %s", why)
	}
	return nil
}

func badName(name string) string {
	switch {
	case name == "":
		return "the empty string is not allowed"
	case name == ".":
		return "'.' is not allowed"
	case name == "..":
		return "'..' is not allowed"
	case len(name) > maxTopicName:
		return "the length of '" + clip(name) + "' is longer than the max allowed length 249"
	}
	for i := 0; i < len(name); i++ {
		if !nameByte(name[i]) {
			return "'" + name + "' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
		}
	}
	return ""
}

// clip keeps a hostile name of megabytes out of answers and logs.
func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
}

func nameByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '.' || b == '_' || b == '-'
}

// collides says that two names differ only by '.' and '_', which Kafka keeps apart because metric
// names cannot.
func collides(a, b string) bool {
	if len(a) != len(b) || a == b {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && (a[i] != '.' && a[i] != '_' || b[i] != '.' && b[i] != '_') {
			return false
		}
	}
	return true
}

// collision finds an existing topic whose name collides.
func collision(im *meta.Image, name string) (string, bool) {
	if !strings.ContainsAny(name, "._") {
		return "", false
	}
	return im.FindTopic(func(t *meta.Topic) bool { return collides(t.Name, name) })
}
