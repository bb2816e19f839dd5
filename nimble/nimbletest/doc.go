// Package nimbletest simulates a Nimble CRM account, for developing and testing what reads one.
package nimbletest
