package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// Bridge is the bridge that the pods of a node are on.
	Bridge = "cni0"
	// ConfFile is the name of our CNI configuration.
	ConfFile = "10-coracle.conflist"
	// cniVersion is the newest that containernetworking-plugins 1.1.1 speaks.
	cniVersion = "1.0.0"
)

// ConfList renders the CNI configuration of a node: a bridge whose pods have
// their addresses from the node's pod ranges. Hairpin mode lets a pod reach
// itself through its service. MTU 0 leaves the choice to the plugin.
func ConfList(podCIDRs []netip.Prefix, mtu int) []byte {
	type subnet struct {
		Subnet string `json:"subnet"`
	}
	type route struct {
		Dst string `json:"dst"`
	}
	type ipam struct {
		Type   string     `json:"type"`
		Ranges [][]subnet `json:"ranges"`
		Routes []route    `json:"routes"`
	}
	type plugin struct {
		Type        string `json:"type"`
		Bridge      string `json:"bridge"`
		MTU         int    `json:"mtu,omitempty"`
		IsGateway   bool   `json:"isGateway"`
		HairpinMode bool   `json:"hairpinMode"`
		IPAM        ipam   `json:"ipam"`
	}
	p := plugin{Type: "bridge", Bridge: Bridge, MTU: mtu, IsGateway: true, HairpinMode: true, IPAM: ipam{Type: "host-local"}}
	for _, c := range podCIDRs {
		p.IPAM.Ranges = append(p.IPAM.Ranges, []subnet{{c.Masked().String()}})
		all := "0.0.0.0/0"
		if c.Addr().Is6() {
			all = "::/0"
		}
		p.IPAM.Routes = append(p.IPAM.Routes, route{all})
	}
	out, err := json.MarshalIndent(struct {
		CNIVersion string   `json:"cniVersion"`
		Name       string   `json:"name"`
		Plugins    []plugin `json:"plugins"`
	}{cniVersion, "coracle", []plugin{p}}, "", "  ")
	if err != nil {
		panic(err) // Strings, numbers and booleans always encode.
	}
	return append(out, '\n')
}

// foreignConf says whether a file in the CNI folder is another pod network's
// configuration. What container engines put there for themselves is not: it
// was not meant for pods.
func foreignConf(name string) bool {
	if name == ConfFile {
		return false
	}
	switch filepath.Ext(name) {
	case ".conf", ".conflist", ".json":
	default:
		return false
	}
	return !slices.ContainsFunc([]string{"87-podman", "100-crio", "11-crio", "99-loopback", "200-loopback", "nerdctl-"},
		func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// findForeign names another pod network's configuration in the folder, or "".
func findForeign(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the CNI folder: %w", err)
	}
	for _, e := range entries {
		if foreignConf(e.Name()) {
			return e.Name(), nil
		}
	}
	return "", nil
}

// writeConf puts our configuration in the folder if it is not there already,
// in one step: a runtime that looks meanwhile sees the old file or the new one.
func writeConf(dir string, conf []byte) (changed bool, err error) {
	path := filepath.Join(dir, ConfFile)
	if old, err := os.ReadFile(path); err == nil && string(old) == string(conf) {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("create the CNI folder: %w", err)
	}
	// The runtime ignores names without a known extension.
	tmp, err := os.CreateTemp(dir, ".coracle-*.tmp")
	if err != nil {
		return false, fmt.Errorf("write the CNI configuration: %w", err)
	}
	_, err = tmp.Write(conf)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return false, fmt.Errorf("write the CNI configuration: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return true, nil
}

// removeConf takes our configuration away, so that another one is in force.
func removeConf(dir string) error {
	if err := os.Remove(filepath.Join(dir, ConfFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove our CNI configuration: %w", err)
	}
	return nil
}
