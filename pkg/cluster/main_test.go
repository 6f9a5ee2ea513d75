package cluster

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary stand in for the programs that a cluster runs:
// the node's init is the real one; control plane and kubelet are the smallest
// ones that a cluster can be started with.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		var err error
		switch os.Args[1] {
		case "node-init":
			os.Exit(NodeInit(context.Background(), os.Args[2]))
		case "stand-in-apiserver":
			err = standInAPIServer(os.Args[2:])
		case "stand-in-kubelet":
			err = standInKubelet(os.Args[2:])
		case "create":
			err = createCluster(os.Args[2], os.Args[3])
		case "failing-apiserver":
			fmt.Println("cannot open the store: the disk is on fire")
			os.Exit(1)
		case "idle-kubelet":
			time.Sleep(time.Hour)
		default:
			if !strings.HasPrefix(os.Args[1], "-test.") {
				err = fmt.Errorf("unknown program %q", os.Args[1])
				break
			}
			os.Exit(m.Run())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
