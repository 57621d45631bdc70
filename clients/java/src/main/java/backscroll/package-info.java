/** The client: {@link backscroll.Client#open} is where to begin. */
package backscroll;
