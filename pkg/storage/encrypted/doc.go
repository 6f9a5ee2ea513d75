// Package encrypted keeps values encrypted in a storage backend: what is
// above it sees plain bytes, what is below it, the store's files, logs and
// backups, does not.
//
// Contract: the wrapped backend behaves as the one within, which Close closes
// too. Encrypted values have the form of kube-apiserver, with the storage key
// as authenticated data where the cipher knows such, so that a value that was
// moved to another key does not open. A value that cannot be opened comes as
// storage.Unreadable and harms no other. Which values are encrypted is told by
// Rules, which can be replaced while requests are under way; Rewrite brings
// stored values to what the present Rules say.
package encrypted
