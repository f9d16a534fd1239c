package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

// Files of a log directory and of a partition's folder (kafka.md 3.4).
const (
	fileRecovery  = "recovery-point-offset-checkpoint"
	fileLogStart  = "log-start-offset-checkpoint"
	fileHW        = "replication-offset-checkpoint"
	fileProps     = "meta.properties"
	fileClean     = ".kafka_cleanshutdown"
	fileLock      = ".lock"
	fileFormat    = "milena-format"
	fileCanary    = ".canary" // of package member, which asks the disk whether it still answers
	fileEpochs    = "leader-epoch-checkpoint"
	filePartition = "partition.metadata"

	formatNumber   = 1
	maxCheckpoint  = 256 << 20
	maxSmallFile   = 1 << 20
	maxTopicLength = 249
)

// writeAtomic replaces a file so that after a crash either the old or the new content is there:
// temporary file, sync, rename, sync of the folder.
func writeAtomic(fsys vfs.FS, name string, content []byte) error {
	if err := writeSynced(fsys, name+extTemp, content); err != nil {
		return err
	}
	if err := fsys.Rename(name+extTemp, name); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

func writeSynced(fsys vfs.FS, name string, content []byte) error {
	return writeFile(fsys, name, content, true)
}

func writeFile(fsys vfs.FS, name string, content []byte, sync bool) error {
	f, err := fsys.OpenFile(name, vfs.ReadWrite|vfs.Create|vfs.Trunc, filePerm)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil && sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// encodeOffsets is Kafka's checkpoint text: version, count, "topic partition offset" lines.
func encodeOffsets(n int, each func(yield func(tp meta.TopicPartition, offset int64))) []byte {
	b := make([]byte, 0, 16+n*32)
	b = append(b, "0\n"...)
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, '\n')
	each(func(tp meta.TopicPartition, offset int64) {
		b = append(b, tp.Topic...)
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(tp.Partition), 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, offset, 10)
		b = append(b, '\n')
	})
	return b
}

// readOffsets reads a checkpoint. A missing one is empty; a malformed one is an error.
func readOffsets(fsys vfs.FS, name string) (map[meta.TopicPartition]int64, error) {
	raw, err := vfs.ReadFile(fsys, name, maxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rows, err := checkpointRows(raw, 3)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	m := make(map[meta.TopicPartition]int64, len(rows))
	for _, r := range rows {
		p, err1 := strconv.ParseInt(r[1], 10, 32)
		o, err2 := strconv.ParseInt(r[2], 10, 64)
		if err := errors.Join(err1, err2); err != nil || p < 0 || o < 0 {
			return nil, fmt.Errorf("read %s: bad line %q", name, strings.Join(r, " "))
		}
		m[meta.TopicPartition{Topic: r[0], Partition: int32(p)}] = o
	}
	return m, nil
}

var errCheckpoint = errors.New("malformed checkpoint")

// checkpointRows splits a checkpoint text into rows of exactly n words and checks version and count.
func checkpointRows(raw []byte, n int) ([][]string, error) {
	sc := bufio.NewScanner(bytes.NewReader(raw))
	if !sc.Scan() || sc.Text() != "0" {
		return nil, fmt.Errorf("%w: version %q", errCheckpoint, sc.Text())
	}
	if !sc.Scan() {
		return nil, fmt.Errorf("%w: no count", errCheckpoint)
	}
	count, err := strconv.Atoi(sc.Text())
	if err != nil {
		return nil, fmt.Errorf("%w: count %q", errCheckpoint, sc.Text())
	}
	var rows [][]string
	for sc.Scan() {
		r := strings.Fields(sc.Text())
		if len(r) != n {
			return nil, fmt.Errorf("%w: line %q", errCheckpoint, sc.Text())
		}
		rows = append(rows, r)
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	if len(rows) != count {
		return nil, fmt.Errorf("%w: %d lines, count says %d", errCheckpoint, len(rows), count)
	}
	return rows, nil
}

// properties reads a Java properties file as far as meta.properties and partition.metadata need it.
func properties(raw []byte, sep string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		if k, v, ok := strings.Cut(line, sep); ok {
			m[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	return m
}

func encodePartitionMetadata(id meta.UUID) []byte {
	return []byte("version: 0\ntopic_id: " + id.String())
}

// readPartitionMetadata is the topic id; false when the file is missing or was never completely written.
func readPartitionMetadata(fsys vfs.FS, name string) (meta.UUID, bool, error) {
	raw, err := vfs.ReadFile(fsys, name, maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return meta.UUID{}, false, nil
	}
	if err != nil {
		return meta.UUID{}, false, err
	}
	p := properties(raw, ":")
	id, err := meta.ParseUUID(p["topic_id"])
	if p["version"] != "0" || err != nil {
		return meta.UUID{}, false, nil
	}
	return id, true, nil
}

// dirName is the folder of a partition.
func dirName(tp meta.TopicPartition) string {
	return tp.Topic + "-" + strconv.Itoa(int(tp.Partition))
}

// parseDirName reads a partition's folder name: topic, dash, number.
func parseDirName(name string) (meta.TopicPartition, bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || i > maxTopicLength {
		return meta.TopicPartition{}, false
	}
	p, err := strconv.ParseInt(name[i+1:], 10, 32)
	if err != nil || p < 0 || dirName(meta.TopicPartition{Topic: name[:i], Partition: int32(p)}) != name {
		return meta.TopicPartition{}, false
	}
	return meta.TopicPartition{Topic: name[:i], Partition: int32(p)}, validTopic(name[:i])
}

// validTopic is Kafka's rule for topic names; storage checks it again because a name becomes a path.
func validTopic(t string) bool {
	if t == "" || t == "." || t == ".." || len(t) > maxTopicLength {
		return false
	}
	for _, c := range []byte(t) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
