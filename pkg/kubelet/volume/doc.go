// Package volume gives the containers of a pod their volumes.
//
// A Manager sets up all volumes of a pod (Mount), turns a container's
// volumeMounts into mounts for the runtime (ContainerMounts), keeps volumes
// that show API objects up to date (Refresh), and takes everything down again
// (Unmount). Every call is idempotent and safe for concurrent use; what is on
// disk is the only state that matters, so that a restarted agent goes on where
// the last one stopped.
//
// Folders, all below RootDir/pods/<uid>, which only root may enter:
//
//	volumes/kubernetes.io~<kind>/<name>       a volume, where it needs a place of its own
//	volume-subpaths/<volume>/<container>/<n>  what the subPath of mount n shows
//	claims/<name>                             where a claimed volume is on the node
//
// CSI volumes have their places below RootDir/plugins/kubernetes.io/csi as well,
// all as Kubernetes' own agent has them, since drivers look there. A pod's use of
// one is noted in its folder before anything is mounted, and that note goes last:
// what is staged for the node is taken down with the last note. SELinux labels
// are not passed to drivers (CSIDriver's seLinuxMount): no runtime of a node
// labels containers here.
//
// Volumes that the cluster made on this node are in RootDir/local-volumes/<name>:
// the folder is made when a pod first mounts it, and RemoveLocal takes it away
// once no pod has it.
//
// Guarantees:
//
//   - A volume that shows ConfigMaps, Secrets, tokens or fields of the pod
//     changes as a whole: readers see all old files or all new ones. Containers
//     cannot write to it.
//   - Secrets and tokens are kept in memory (tmpfs), never on disk.
//   - A subPath never leads out of its volume, whatever a container does to the
//     volume meanwhile: the path is resolved by the kernel beneath the volume's
//     root, and what was resolved is mounted by descriptor, not by name.
//   - Clean-up follows no symbolic link and enters no other mount.
//
// A new kind of volume is one file that declares a kind, and one line in kinds.
package volume
