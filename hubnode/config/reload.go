package config

// Reloadable names the fields that differ between two configurations and that
// a running node can't change: hub, node, listen, advertise, gossipKeyFile,
// tls.directory, tls.clusterDirectory, and storage but for its replicas.
// It returns nil when a node that runs old can go over to next in place; all
// other fields it can follow.
func Reloadable(old, next Config) (changed []string) {
	for _, field := range []struct {
		name    string
		differs bool
	}{
		{"hub", old.Hub != next.Hub},
		{"node", old.Node != next.Node},
		{"listen", old.Listen != next.Listen},
		{"advertise", old.Advertise != next.Advertise},
		{"gossipKeyFile", old.GossipKeyFile != next.GossipKeyFile},
		{"tls.directory", old.TLS.Directory != next.TLS.Directory},
		{"tls.clusterDirectory", old.TLS.ClusterDirectory != next.TLS.ClusterDirectory},
		{"storage", old.Storage.fixed() != next.Storage.fixed()},
	} {
		if field.differs {
			changed = append(changed, field.name)
		}
	}
	return changed
}

// fixed returns the part of the storage's settings that a running node can't
// change.
func (s Storage) fixed() Storage {
	s.Replicas = 0
	return s
}
