package backscroll;

/**
 * The request cannot succeed as it is; sending it again does not help. It had no effect. The codes
 * of this level have subclasses, such as {@link backscroll.errors.NotFoundException}.
 */
public non-sealed class CallerException extends BackscrollException {
  private static final long serialVersionUID = 1L;

  /**
   * An error that is the caller's fault.
   *
   * @param reply what the daemon said, or this client itself
   */
  public CallerException(ErrorReply reply) {
    super(reply);
  }
}
