/** An application in a module of its own. */
module consumer {
  requires backscroll;
}
