package meta

// buckets is the width of a table's root. An Apply copies the root (2 KiB) and the buckets it
// touches, 1/256 of the table each: creating n topics one by one stays far from n² in practice.
const buckets = 256

// table is a persistent hash map: copies share the buckets that did not change. The zero value is
// empty and readable; writing goes through an editor.
type table[K comparable, V any] struct {
	root *[buckets]map[K]V
	n    int
}

func (t table[K, V]) get(h uint8, k K) (V, bool) {
	if t.root == nil {
		var zero V
		return zero, false
	}
	v, ok := t.root[h][k]
	return v, ok
}

// each visits every entry in no particular order.
func (t table[K, V]) each(fn func(K, V)) {
	if t.root == nil {
		return
	}
	for _, m := range t.root {
		for k, v := range m {
			fn(k, v)
		}
	}
}

// editor writes to a private copy of a table: the root is copied once, a bucket when it is first
// written.
type editor[K comparable, V any] struct {
	t     table[K, V]
	own   bool
	owned [buckets]bool
	hash  func(K) uint8
}

func edit[K comparable, V any](t table[K, V], hash func(K) uint8) *editor[K, V] {
	return &editor[K, V]{t: t, hash: hash}
}

func (e *editor[K, V]) get(k K) (V, bool) { return e.t.get(e.hash(k), k) }

func (e *editor[K, V]) bucket(h uint8) map[K]V {
	if !e.own {
		r := new([buckets]map[K]V)
		if e.t.root != nil {
			*r = *e.t.root
		}
		e.t.root, e.own = r, true
	}
	if !e.owned[h] {
		old := e.t.root[h]
		m := make(map[K]V, len(old)+1)
		for k, v := range old {
			m[k] = v
		}
		e.t.root[h], e.owned[h] = m, true
	}
	return e.t.root[h]
}

func (e *editor[K, V]) set(k K, v V) {
	m := e.bucket(e.hash(k))
	n := len(m)
	m[k] = v
	e.t.n += len(m) - n
}

func (e *editor[K, V]) del(k K) {
	if _, ok := e.get(k); !ok {
		return
	}
	delete(e.bucket(e.hash(k)), k)
	e.t.n--
}

// hashString is FNV-1a folded to a byte: the same on every machine, and good enough for a
// first-level split (the Go map below it is keyed by the whole string).
func hashString(s string) uint8 {
	h := uint32(2166136261)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint32(s[i])) * 16777619
	}
	h ^= h >> 16
	return uint8(h ^ h>>8)
}

func hashUUID(u UUID) uint8 { return u[15] }

func hashResource(r Resource) uint8 { return hashString(r.Name) ^ uint8(r.Type) }
