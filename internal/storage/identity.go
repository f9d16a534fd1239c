package storage

import (
	"fmt"
	"path/filepath"

	"github.com/milena-mq/milena/internal/vfs"
)

// ClusterID is cluster.id of meta.properties, "" while the directory belongs to no cluster yet.
func (d *Dir) ClusterID() (string, error) {
	raw, err := vfs.ReadFile(d.fs, filepath.Join(d.path, fileProps), maxSmallFile)
	if err != nil {
		return "", err
	}
	return properties(raw, "=")["cluster.id"], nil
}

// Adopt writes the cluster's id into a directory that has none. The id is only known once the coordination
// store is open, and the directory must be locked before that. A directory of another cluster gives ErrForeign.
func (d *Dir) Adopt(cluster string, node int32) error {
	have, err := d.ClusterID()
	if err != nil {
		return err
	}
	switch have {
	case cluster:
		return nil
	case "":
		return d.writeIdentity(cluster, node)
	}
	return fmt.Errorf("log directory %s: %w: cluster.id is %s there, %s here", d.path, ErrForeign, have, cluster)
}
