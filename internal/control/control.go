package control

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// Error is a refusal: Kafka's code and the sentence that the client sees.
type Error struct {
	Code    *kerr.Error
	Message string
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the code, so that an error mapping finds it anywhere in a chain.
func (e *Error) Unwrap() error { return e.Code }

func refuse(code *kerr.Error, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// ApplyLimit is the most changes of one step, below what every store takes at once.
const ApplyLimit = 1000

// byteLimit is the most bytes of keys and values in one step.
const byteLimit = 1 << 20

// Plan is changes as atomic steps, to be appended in order. A plan of no steps changes nothing.
type Plan struct{ Steps [][]meta.Change }

// Len counts the changes.
func (p Plan) Len() int {
	n := 0
	for _, s := range p.Steps {
		n += len(s)
	}
	return n
}

// Cluster is what decisions need beside the image.
type Cluster struct {
	Image  *meta.Image
	Static *config.Static   // defaults of the broker that decides
	NodeID int32            // that broker
	NewID  func() meta.UUID // a fresh random id
	Rand   func(n int) int  // in [0, n)
	// Slow says that a broker lives but does not follow the metadata (Liveness.Slow): it is elected only where nobody
	// else can be. nil: none.
	Slow func(id int32) bool
	// Full says that a directory of a broker has no room for records (Liveness.Full): who leads there refuses produce, so
	// that it is elected only where nobody with room can be. The zero id: the broker's directory is not known. nil: none.
	Full func(id int32, dir meta.UUID) bool
}

// Layers is the configuration that a new topic inherits.
func (c *Cluster) Layers() config.Layers { return Layers(c.Image, c.Static, c.NodeID) }

// Layers is the broker-wide configuration as one broker sees it. Topic and group layers are left for
// the caller to add.
func Layers(im *meta.Image, s *config.Static, node int32) config.Layers {
	return config.Layers{
		Static:         s,
		DynamicDefault: im.Config(meta.Resource{Type: meta.ResourceBroker}),
		DynamicBroker:  im.Config(meta.Resource{Type: meta.ResourceBroker, Name: fmt.Sprint(node)}),
	}
}

// packer fills steps with units of changes that belong together.
type packer struct {
	plan  Plan
	bytes int // of the last step
}

func size(cs []meta.Change) int {
	n := 0
	for _, c := range cs {
		n += len(c.Key) + len(c.Value)
	}
	return n
}

// whole adds changes that must be in one step.
func (p *packer) whole(cs []meta.Change) {
	n, b := len(p.plan.Steps), size(cs)
	if n > 0 && len(p.plan.Steps[n-1])+len(cs) <= ApplyLimit && p.bytes+b <= byteLimit {
		p.plan.Steps[n-1] = append(p.plan.Steps[n-1], cs...)
		p.bytes += b
		return
	}
	p.plan.Steps = append(p.plan.Steps, cs)
	p.bytes = b
}

// split adds changes of which any number may go into a step.
func (p *packer) split(cs []meta.Change) {
	for i := range cs {
		p.whole(cs[i : i+1 : i+1])
	}
}

// fits says whether a unit goes into one step at all.
func fits(cs ...[]meta.Change) bool {
	n, b := 0, 0
	for _, c := range cs {
		n, b = n+len(c), b+size(c)
	}
	return n <= ApplyLimit && b <= byteLimit
}

// first adds a unit whose head makes the tail invisible (a deletion): in one step if it fits, else
// the head first, since a half-deleted topic must not show.
func (p *packer) first(head, tail []meta.Change) {
	if fits(head, tail) {
		p.whole(append(head, tail...))
		return
	}
	p.whole(head)
	p.split(tail)
}

// last adds a unit whose head makes the tail visible (a creation): in one step if it fits, else the
// tail first, since a half-made topic must not show.
func (p *packer) last(head, tail []meta.Change) {
	if fits(head, tail) {
		p.whole(append(head, tail...))
		return
	}
	p.split(tail)
	p.whole(head)
}
