package cluster

import (
	"encoding/json"
	"fmt"
	"os"
)

// initConfig tells a node's init what machine to be. The cluster side writes
// it before each start; the init reads it once.
type initConfig struct {
	// Hostname of the node.
	Hostname string
	// Root is the folder on the host that becomes the node's "/".
	Root string
	// Binds are host paths shown in the node, mounted in order.
	Binds []bind
	// Links are symbolic links in the node's root: name to target. They
	// repeat the host's merged-/usr layout.
	Links map[string]string
	// Hierarchies are the cgroup file systems to mount in the node.
	Hierarchies []hierarchy
	// Processes are started in order, each when its After files exist, and
	// started again when they end.
	Processes []process
	// StopOrder names processes in the order in which a graceful stop ends
	// them.
	StopOrder []string
}

// bind is one bind mount from the host into a node.
type bind struct {
	Source   string
	Target   string
	ReadOnly bool
	// Recursive takes the mounts below Source along.
	Recursive bool
}

// process is a program that a node's init keeps running.
type process struct {
	Name string
	Args []string
	Env  []string
	// Log is a path in the node; the init keeps it below maxLogBytes.
	Log string
	// After are paths in the node that must exist before the first start.
	After []string
}

func readInitConfig(path string) (*initConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read node configuration: %w", err)
	}
	cfg := new(initConfig)
	if err := json.Unmarshal(data, cfg); err != nil {
		return nil, fmt.Errorf("read node configuration %s: %w", path, err)
	}
	return cfg, nil
}
