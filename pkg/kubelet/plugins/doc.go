// Package plugins notices programs that offer the node agent a service: CSI
// drivers now, and whatever else announces itself the same way.
//
// A plugin puts a socket into a folder, RootDir/plugins_registry. A Watcher asks
// each socket, by the pluginregistration API, what it is, hands it to the
// Handler of its type, and tells it what came of that. A plugin whose socket is
// gone is deregistered; one whose socket was made anew is registered again,
// without a gap between. Nothing is kept on disk: an agent that starts again
// asks all sockets that it finds.
//
// Guarantees:
//
//   - A socket that does not answer delays no other, and is asked again, ever
//     more rarely.
//   - Each call has a deadline; the number of sockets and the depth of folders
//     are bounded.
//   - The end of the agent deregisters nothing: the plugins are still there.
package plugins
