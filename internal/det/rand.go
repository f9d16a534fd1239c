package det

// Rand is a small seeded generator (splitmix64): the same seed gives the same sequence on every
// machine and every Go version, which math/rand does not promise. It is not for secrets.
// It is not safe for concurrent use.
type Rand struct{ state uint64 }

// NewRand starts a sequence.
func NewRand(seed uint64) *Rand { return &Rand{state: seed} }

// Uint64 is the next number of the sequence.
func (r *Rand) Uint64() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// Intn is a number in [0, n); n below 1 gives 0.
func (r *Rand) Intn(n int) int {
	if n < 1 {
		return 0
	}
	return int(r.Uint64() % uint64(n))
}

// Bytes fills b.
func (r *Rand) Bytes(b []byte) {
	for i := range b {
		if i%8 == 0 {
			v := r.Uint64()
			for j := i; j < len(b) && j < i+8; j++ {
				b[j] = byte(v >> (8 * (j - i)))
			}
		}
	}
}
