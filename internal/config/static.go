package config

// Static is what the broker was started with. It does not change after Parse; nil is a broker without any
// setting.
type Static struct {
	values map[string]string
	origin map[string]string // for error messages: "--set", "FILE", the name of an environment variable
}

// Get returns a value given at start under exactly this name.
func (s *Static) Get(name string) (string, bool) {
	if s == nil {
		return "", false
	}
	v, ok := s.values[name]
	return v, ok
}

// StaticOf makes a Static from plain values that are known to be good, for tests and embedding.
func StaticOf(values map[string]string) *Static {
	s := &Static{values: map[string]string{}, origin: map[string]string{}}
	for k, v := range values {
		s.values[k] = v
	}
	return s
}
