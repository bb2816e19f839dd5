// Package smalldisk gives tests a disk that they can fill: a file system of its own under a directory, in memory. Mounting one takes Linux, and the right to mount; where either
// is missing the test is skipped, and says so.
package smalldisk
