// Command etcd is stock etcd, made from the library that the project links, so
// that the benchmark needs no download.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
