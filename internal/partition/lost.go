package partition

import "github.com/milena-mq/milena/internal/meta"

// LostDirs is the ids of the log directories that failed since the start, for the heartbeat: the controller
// moves leadership off them (KIP-858).
func (s *Set) LostDirs() []meta.UUID {
	var out []meta.UUID
	for _, d := range s.dirs {
		if d.failed.Load() {
			out = append(out, d.d.ID())
		}
	}
	return out
}

// FullDirs is the ids of the log directories whose disk is full to its reserve, for the heartbeat: the controller moves
// leadership off them to brokers that have room.
func (s *Set) FullDirs() []meta.UUID {
	var out []meta.UUID
	for _, d := range s.dirs {
		if d.d.AtReserve() && !d.failed.Load() {
			out = append(out, d.d.ID())
		}
	}
	return out
}
