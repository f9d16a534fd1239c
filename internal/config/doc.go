// Package config owns the one table of configuration keys: Kafka's names, synonyms, types, defaults,
// validators and scopes for topics, brokers, groups and client metrics, the few keys of Milena itself,
// and for each key an honest status: Live, Inert (accepted, no effect, with the reason) or Refused.
//
// It never acts on a value, never reads a file, the environment or the clock (sources are handed in),
// and imports nothing else of Milena.
//
// Anybody runs it, from any goroutine: the table is built once before main and never changed; a Static
// does not change after Parse; Layers only borrows maps that its maker must not change any more.
//
// Invariants: every key of Kafka 4.3's topic, broker, group and client metrics tables is here; a value
// that was accepted by Validate is read back by Of without an error; docs/config.md is printed from the
// table; the only defaults that differ from Kafka's are marked as such in the table.
//
// Read key.go first, then keys_topic.go.
package config
