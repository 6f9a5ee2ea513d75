package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"coracle/pkg/network"
)

// ErrNotRoot is returned when the caller may not make namespaces.
var ErrNotRoot = errors.New("local clusters need root (they make namespaces, bridges and mounts): run the command again with sudo")

// requirement is something a package of the distribution provides.
type requirement struct {
	// program is looked up in PATH, or is a file when it begins with a slash.
	program string
	pkg     string
	node    bool // only nodes with containers need it
}

var requirements = []requirement{
	{"containerd", "containerd", true},
	{"runc", "runc", true},
	{cniBinDir + "/bridge", "containernetworking-plugins", true},
	{cniBinDir + "/host-local", "containernetworking-plugins", true},
	{cniBinDir + "/loopback", "containernetworking-plugins", true},
	{"nft", "nftables", false},
	{"ip", "iproute2", false},
}

// MissingPackages names the distribution's packages that a cluster needs and
// this machine lacks.
func MissingPackages() []string { return missingPackages(true) }

// missingPackages is MissingPackages for clusters with or without nodes that
// have containers.
func missingPackages(nodes bool) []string {
	var missing []string
	for _, r := range requirements {
		if r.node && !nodes {
			continue
		}
		var err error
		if strings.HasPrefix(r.program, "/") {
			_, err = os.Stat(r.program)
		} else {
			_, err = lookPath(r.program)
		}
		if err != nil && !slices.Contains(missing, r.pkg) {
			missing = append(missing, r.pkg)
		}
	}
	return missing
}

// lookPath finds a program also where only root's PATH looks.
func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if st, statErr := os.Stat(dir + program); statErr == nil && !st.IsDir() {
			return dir + program, nil
		}
	}
	return "", err
}

// checkMachine refuses a machine that cannot run a cluster with that many
// nodes.
func checkMachine(p Programs, nodes int) error {
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	if missing := missingPackages(nodes > 0); len(missing) > 0 {
		return fmt.Errorf("this machine lacks %s: run hack/install-packages, or \"apt-get install --no-install-recommends %s\"",
			strings.Join(missing, ", "), strings.Join(missing, " "))
	}
	for _, file := range []string{p.APIServer, p.Kubelet, p.Init[0]} {
		if st, err := os.Stat(file); err != nil || st.IsDir() {
			return fmt.Errorf("the program %s is not there: build it with \"make build\"", file)
		}
	}
	_, err := hostHierarchies()
	return err
}

// firstPort is the API server's usual port.
const firstPort = 6443

// choosePort returns port when it is free, or the first free one from 6443 on
// when port is zero. Ports of stopped clusters are not free.
func choosePort(port int, others []*Spec) (int, error) {
	taken := func(p int) error {
		for _, o := range others {
			if o.Port == p {
				return fmt.Errorf("it belongs to cluster %s", o.Name)
			}
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err != nil {
			return errors.New("another program listens on it")
		}
		return l.Close()
	}
	if port != 0 {
		if err := taken(port); err != nil {
			return 0, fmt.Errorf("port %d is busy: %w; choose another one, or none for the first that is free", port, err)
		}
		return port, nil
	}
	for p := firstPort; p < firstPort+200; p++ {
		if taken(p) == nil {
			return p, nil
		}
	}
	return 0, fmt.Errorf("no port from %d to %d is free: choose one yourself", firstPort, firstPort+199)
}

// chooseSubnet returns a /24 of 10.89.0.0/16 that no address or route of this
// machine and no other cluster uses.
func chooseSubnet(others []*Spec) (netip.Prefix, error) {
	host, err := network.CurrentNS()
	if err != nil {
		return netip.Prefix{}, err
	}
	defer host.Close()
	used, err := host.Addrs()
	if err != nil {
		return netip.Prefix{}, err
	}
	used = append(used, routedPrefixes()...)
	for _, o := range others {
		used = append(used, o.Subnet)
	}
	return freeSubnet(used)
}

func freeSubnet(used []netip.Prefix) (netip.Prefix, error) {
	for third := range 256 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 89, byte(third), 0}), 24)
		if !slices.ContainsFunc(used, p.Overlaps) {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("every /24 of 10.89.0.0/16 is in use on this machine: delete a cluster or a route")
}

// routedPrefixes reads this machine's IPv4 routes, without the default route.
func routedPrefixes() []netip.Prefix {
	data, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil // a machine without IPv4 routes has none to collide with
	}
	return parseRoutes(string(data))
}

// parseRoutes reads the kernel's table: addresses are hexadecimal in the
// byte order of this machine, here little-endian.
func parseRoutes(table string) []netip.Prefix {
	var out []netip.Prefix
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		dst, err1 := strconv.ParseUint(fields[1], 16, 32)
		mask, err2 := strconv.ParseUint(fields[7], 16, 32)
		if err1 != nil || err2 != nil || mask == 0 {
			continue
		}
		addr := netip.AddrFrom4([4]byte{byte(dst), byte(dst >> 8), byte(dst >> 16), byte(dst >> 24)})
		bits := 0
		for m := mask; m != 0; m &= m - 1 {
			bits++
		}
		out = append(out, netip.PrefixFrom(addr, bits))
	}
	return out
}
